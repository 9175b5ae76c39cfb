//! The text of help and manual besides the options.

/// How the program is called.
pub(super) const SYNOPSIS: &[&str] = &[
    "[options] [<priority>=]<url>...",
    "--once [options] [<priority>=]<url>...",
    "--check|--status|--gc [options]",
];

/// The description, in paragraphs.
pub(super) const DESCRIPTION: &[&str] = &[
    "Turns this host into a build machine: bootstraps the virtual machines under --machines, \
     asks the controllers for tasks, performs each in a throw-away snapshot of a machine and \
     uploads the result.",
    "A controller is an http:// or https:// URL, or, for a host without network, a directory \
     (an absolute path or file: URL): tasks are taken from its tasks/ and results appear in its \
     results/. Controllers of higher priority (up to 5 digits, absent: 0) are asked first.",
    "Times are in seconds, or with a unit: 90s, 15m, 3h, 7d. Sizes are in bytes, or with a \
     unit: 64K, 14M, 10G, 1T.",
];

/// Exit statuses.
pub(super) const EXIT: &[(u8, &str)] = &[
    (0, "done, or there was nothing to do"),
    (1, "a failure, explained by the diagnostics"),
    (3, "SIGHUP: the task in hand is finished; start me again"),
    (
        64,
        "wrong command line, environment variable or option file",
    ),
    (69, "no controller answered (--once)"),
    (71, "the operating system refused something basic"),
    (
        75,
        "another agent holds the lock (--once: with --no-wait only)",
    ),
    (77, "a permission is missing"),
    (78, "the host is not set up right; --check tells what to do"),
];

/// Signals.
pub(super) const SIGNALS: &[(&str, &str)] = &[
    (
        "SIGUSR1",
        "drain: finish the task in hand, take no more, exit with 0",
    ),
    ("SIGHUP", "finish the task in hand, upload it, exit with 3"),
    (
        "SIGTERM, SIGINT",
        "force the guest down, clean up, exit with 0; a second one hurries",
    ),
];

/// Environment variables.
pub(super) const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "BBOT_AGENT_OPTIONS",
        "options, separated by blanks, with quotes around those that contain blanks",
    ),
    (
        "CREDENTIALS_DIRECTORY",
        "where systemd puts credentials; auth-key is used when it is there",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC",
        "where and how often systemd wants to hear from us",
    ),
    ("PAGER", "what shows --help on a terminal"),
];

/// Files, with the default directories.
pub(super) const FILES: &[(&str, &str)] = &[
    (
        "/build/machines/<volume>/<name>/",
        "a machine: <name>-1 is a link to the current <name>-1.<revision>",
    ),
    (
        "/build/tftp/toolchain/<toolchain>/",
        "what guests fetch when they are bootstrapped",
    ),
    (
        "/run/bbot-agent/<toolchain>-<instance>/",
        "agent.lock, status.json, sockets of the guest",
    ),
    (
        "/var/lib/bbot-agent/",
        "results on their way, the journal of tasks",
    ),
];
