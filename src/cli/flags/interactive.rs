//! Interactive builds.

use super::{Complete, Default, FLAG, Flag, Group, Takes, put};
use crate::manifest::InteractiveMode;

pub(super) const INTERACTIVE: Group = Group {
    title: "Interactive builds",
    flags: &[
        Flag {
            name: "interactive",
            takes: Takes::Value("mode"),
            complete: Complete::Words(&["false", "true", "both"]),
            default: Default::Is("false"),
            help: "Tasks that are taken. false: those that are not interactive. true: interactive \
                   ones, in whose guests a user may log in when the build stops. both: all.",
            set: |d, v| {
                let words = [
                    InteractiveMode::No,
                    InteractiveMode::Only,
                    InteractiveMode::Both,
                ];
                put(
                    &mut d.options.interactive,
                    v.one_of(&words.map(|mode| (mode.keyword(), mode))),
                )
            },
            ..FLAG
        },
        Flag {
            name: "interactive-login",
            takes: Takes::Value("text"),
            default: Default::Means("%h:%p with --interactive-vnc, otherwise %h:%s"),
            help: "The way to the guest, which controllers show to the user. %h stands for the \
                   agent's name, %i for its instance, %p for the port of the display, %s for its \
                   socket, %% for a percent sign.",
            set: |d, v| put(&mut d.options.interactive_login, v.login().map(Some)),
            ..FLAG
        },
        Flag {
            name: "interactive-vnc",
            takes: Takes::Value("address"),
            default: Default::Means("a socket that ssh can forward"),
            help: "Address of this host for the display (VNC) of interactive guests: <ip> or \
                   <ip>:<port>, with a port from 5900, which is the default. It is the port of \
                   instance 1, and each instance has the next one.",
            set: |d, v| put(&mut d.options.interactive_vnc, v.display().map(Some)),
            ..FLAG
        },
        Flag {
            name: "vnc-password",
            takes: Takes::Value("file"),
            complete: Complete::File,
            default: Default::Means("the systemd credential vnc-password, if any"),
            help: "File with the password of the display at --interactive-vnc, of at most 8 \
                   characters. It must be readable by its owner only. Required unless the \
                   address is a loopback one.",
            set: |d, v| put(&mut d.options.vnc_password, v.path("file").map(Some)),
            ..FLAG
        },
    ],
};
