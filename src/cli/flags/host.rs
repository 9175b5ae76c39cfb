//! The agent on its host, and trials without guests or controllers.

use super::{Complete, Default, FLAG, Flag, Group, Takes, put};

pub(super) const HOST: Group = Group {
    title: "Host",
    flags: &[
        Flag {
            name: "state",
            takes: Takes::Value("dir"),
            complete: Complete::Directory,
            default: Default::Is("/var/lib/bbot-agent"),
            help: "Directory for what must survive a reboot: results on their way, the journal \
                   of tasks.",
            set: |d, v| put(&mut d.options.state, v.path("directory")),
            ..FLAG
        },
        Flag {
            name: "run-dir",
            takes: Takes::Value("dir"),
            complete: Complete::Directory,
            default: Default::Is("/run/bbot-agent"),
            help: "Directory for locks, sockets and the status.",
            set: |d, v| put(&mut d.options.run_dir, v.path("directory")),
            ..FLAG
        },
        Flag {
            name: "metrics",
            takes: Takes::Value("file"),
            complete: Complete::File,
            help: "Keep this Prometheus text file up to date.",
            set: |d, v| put(&mut d.options.metrics, v.path("file").map(Some)),
            ..FLAG
        },
        Flag {
            name: "breaker",
            takes: Takes::Value("num"),
            default: Default::Is("5"),
            help: "After so many failures in a row that are ours and not the package's, ask for \
                   no work, but try one machine now and then; 0: never.",
            set: |d, v| put(&mut d.options.breaker, v.number(0, 1000)),
            ..FLAG
        },
        Flag {
            name: "systemd-daemon",
            help: "Put systemd's priority before each line. Done without asking when standard \
                   error is the journal.",
            set: |d, v| put(&mut d.options.systemd_daemon, v.switch()),
            ..FLAG
        },
        Flag {
            name: "verbose",
            takes: Takes::Value("level"),
            complete: Complete::Words(&["0", "1", "2", "3", "4", "5", "6"]),
            default: Default::Is("1"),
            help: "Level of diagnostics: 0 errors, 1 what matters, 2 essential steps and the \
                   QEMU command, 3 every operation, 4 for the user in trouble, 5 and 6 for the \
                   developer.",
            set: |d, v| put(&mut d.options.verbose, v.number(0, 6)),
            ..FLAG
        },
    ],
};

pub(super) const TRIALS: Group = Group {
    title: "Trials",
    flags: &[
        Flag {
            name: "fake-bootstrap",
            help: "Bootstrap without a guest.",
            set: |d, v| put(&mut d.options.fake_bootstrap, v.switch()),
            ..FLAG
        },
        Flag {
            name: "fake-build",
            help: "Build without a guest: every result is abort.",
            set: |d, v| put(&mut d.options.fake_build, v.switch()),
            ..FLAG
        },
        Flag {
            name: "fake-machine",
            takes: Takes::Value("file"),
            complete: Complete::File,
            help: "Offer the one machine whose header is in <file> (- for standard input), and \
                   wait for somebody to put its result into the TFTP directory.",
            set: |d, v| put(&mut d.options.fake_machine, v.path("file").map(Some)),
            ..FLAG
        },
        Flag {
            name: "fake-request",
            takes: Takes::Value("file"),
            complete: Complete::File,
            help: "Perform the task in <file> (- for standard input) instead of asking a \
                   controller.",
            set: |d, v| put(&mut d.options.fake_request, v.path("file").map(Some)),
            ..FLAG
        },
    ],
};
