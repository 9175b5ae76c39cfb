//! The share of several agents in one host.

use super::{Default, FLAG, Flag, Group, Takes, put};

pub(super) const SHARING: Group = Group {
    title: "Several agents on a host",
    flags: &[
        Flag {
            name: "instance-max",
            takes: Takes::Value("num"),
            default: Default::Is("0"),
            help: "Maximum number of guests that run on this host. While so many run, the agent \
                   asks for no task. 0: no limit.",
            set: |d, v| put(&mut d.options.instance_max, v.number(0, 99)),
            ..FLAG
        },
        Flag {
            name: "host-ram",
            takes: Takes::Value("kB"),
            default: Default::Means("all but a sixteenth, which is at least 512M"),
            help: "Memory for the guests of all agents below --run-dir. In kB, or with a unit as \
                   in 30G. A guest that does not fit waits.",
            set: |d, v| {
                put(
                    &mut d.options.host_ram,
                    v.size(1024, 1024).map(|bytes| Some(bytes / 1024)),
                )
            },
            ..FLAG
        },
        Flag {
            name: "host-cpu",
            takes: Takes::Value("num"),
            default: Default::Means("all processors"),
            help: "Processors for the guests of all agents below --run-dir. A guest that does not \
                   fit waits, unless it is alone.",
            set: |d, v| put(&mut d.options.host_cpu, v.number(1, 4096).map(Some)),
            ..FLAG
        },
    ],
};
