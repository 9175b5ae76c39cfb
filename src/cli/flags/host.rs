//! The agent on its host, and trial runs without guests or controllers.

use super::{Complete, Default, FLAG, Flag, Group, Takes, put};

pub(super) const HOST: Group = Group {
    title: "Host",
    flags: &[
        Flag {
            name: "state",
            takes: Takes::Value("dir"),
            complete: Complete::Directory,
            default: Default::Is("/var/lib/bbot-agent"),
            help: "Directory of persistent state. It holds the journal of tasks and undelivered \
                   results.",
            set: |d, v| put(&mut d.options.state, v.path("directory")),
            ..FLAG
        },
        Flag {
            name: "run-dir",
            takes: Takes::Value("dir"),
            complete: Complete::Directory,
            default: Default::Is("/run/bbot-agent"),
            help: "Directory of locks, sockets and status files.",
            set: |d, v| put(&mut d.options.run_dir, v.path("directory")),
            ..FLAG
        },
        Flag {
            name: "metrics",
            takes: Takes::Value("file"),
            complete: Complete::File,
            help: "Prometheus text file to keep up to date.",
            set: |d, v| put(&mut d.options.metrics, v.path("file").map(Some)),
            ..FLAG
        },
        Flag {
            name: "interrupt",
            takes: Takes::Value("how"),
            complete: Complete::Words(&["pause", "discard"]),
            default: Default::Is("pause"),
            help: "How a task of this agent makes room for one of higher priority of another \
                   agent. pause: its guest is suspended, and goes on after it, if memory and \
                   --result-expiry allow it; otherwise as discard. discard: the guest is ended \
                   and the task given back.",
            set: |d, v| {
                let words = [("pause", true), ("discard", false)];
                put(&mut d.options.pauses, v.one_of(&words))
            },
            ..FLAG
        },
        Flag {
            name: "breaker",
            takes: Takes::Value("num"),
            default: Default::Is("5"),
            help: "Host failures in a row that stop requests. After them, the agent probes with \
                   one machine at intervals. 0: never.",
            set: |d, v| put(&mut d.options.breaker, v.number(0, 1000)),
            ..FLAG
        },
        Flag {
            name: "systemd-daemon",
            help: "Prefix each line with systemd's priority. The default if standard error is the \
                   journal.",
            set: |d, v| put(&mut d.options.systemd_daemon, v.switch()),
            ..FLAG
        },
        Flag {
            name: "verbose",
            takes: Takes::Value("level"),
            complete: Complete::Words(&["0", "1", "2", "3", "4", "5", "6"]),
            default: Default::Is("1"),
            help: "Level of diagnostics. 0: errors. 1: important messages. 2: essential steps and \
                   the QEMU command. 3: every operation. 4: details for operators. 5 and 6: \
                   details for developers.",
            set: |d, v| put(&mut d.options.verbose, v.number(0, 6)),
            ..FLAG
        },
    ],
};

pub(super) const TRIALS: Group = Group {
    title: "Trial runs",
    flags: &[
        Flag {
            name: "fake-bootstrap",
            help: "Bootstrap without a guest.",
            set: |d, v| put(&mut d.options.fake_bootstrap, v.switch()),
            ..FLAG
        },
        Flag {
            name: "fake-build",
            help: "Build without a guest. Every result is abort.",
            set: |d, v| put(&mut d.options.fake_build, v.switch()),
            ..FLAG
        },
        Flag {
            name: "fake-machine",
            takes: Takes::Value("file"),
            complete: Complete::File,
            help: "Offer the machine whose header is in <file>. - is standard input. The agent \
                   waits for its result in the TFTP directory.",
            set: |d, v| put(&mut d.options.fake_machine, v.path("file").map(Some)),
            ..FLAG
        },
        Flag {
            name: "fake-request",
            takes: Takes::Value("file"),
            complete: Complete::File,
            help: "Perform the task in <file>. - is standard input. No controller is asked.",
            set: |d, v| put(&mut d.options.fake_request, v.path("file").map(Some)),
            ..FLAG
        },
    ],
};
