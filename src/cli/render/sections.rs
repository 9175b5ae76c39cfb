//! The text of help and manual besides the options.

/// The forms of the command line.
pub(super) const SYNOPSIS: &[&str] = &[
    "[options] [<priority>=]<url>...",
    "--once [options] [<priority>=]<url>...",
    "--check|--status|--console|--shell|--gc [options]",
];

/// The description, in paragraphs.
pub(super) const DESCRIPTION: &[&str] = &[
    "Turns this host into a build machine: bootstraps the virtual machines under --machines, \
     asks the controllers for tasks, performs each in a throw-away snapshot of a machine and \
     uploads the result.",
    "A controller is an http:// or https:// URL, or, for a host without network, a directory \
     (an absolute path or file: URL): tasks are taken from its tasks/ and results appear in its \
     results/.",
    "A priority has up to five digits, one for each of the levels F, D, C, B and A: 100 is \
     level 1 of C (absent: 0). Controllers of higher priority are asked \
     first, those of equal priority in an order that is drawn anew each turn. The section \
     SEVERAL AGENTS of the manual has the levels, by which a task has others make room.",
    "Times are in seconds, or with a unit: 90s, 15m, 3h, 7d. Sizes are in bytes, or with a \
     unit: 64K, 14M, 10G, 1T.",
];

/// Exit statuses.
pub(super) const EXIT: &[(u8, &str)] = &[
    (0, "success; or there was nothing to do"),
    (1, "a failure, explained by the diagnostics"),
    (3, "SIGHUP: the task is finished; start the agent again"),
    (
        64,
        "wrong command line, environment variable or option file",
    ),
    (69, "no controller answered (--once)"),
    (71, "an error of the operating system"),
    (
        75,
        "another agent holds the lock (--once: with --no-wait only)",
    ),
    (77, "a missing permission"),
    (78, "the host is not set up; --check prints the remedies"),
];

/// Signals.
pub(super) const SIGNALS: &[(&str, &str)] = &[
    (
        "SIGUSR1",
        "drain: finish the task, take no more, exit with 0",
    ),
    (
        "SIGUSR2",
        "end all pauses after failures: try failed bootstraps, guests and controllers again",
    ),
    ("SIGHUP", "finish the task, send its result, exit with 3"),
    (
        "SIGTERM, SIGINT",
        "force the guest down, clean up, exit with 0; a second one shortens the clean-up",
    ),
];

/// Environment variables.
pub(super) const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "BBOT_AGENT_OPTIONS",
        "options, separated by blanks; quotes enclose those that contain blanks",
    ),
    (
        "CREDENTIALS_DIRECTORY",
        "directory of systemd's credentials; auth-key in it is the default of --auth-key",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC",
        "socket and interval of systemd's notifications",
    ),
    (
        "JOURNAL_STREAM",
        "if it names standard error, diagnostics go to systemd's journal with their fields",
    ),
];

/// Files, with the default directories.
pub(super) const FILES: &[(&str, &str)] = &[
    (
        "/etc/bbot-agent/<toolchain>.options",
        "the option file of the systemd units",
    ),
    (
        "/build/machines/<volume>/<name>/<name>-1",
        "link to the current revision <name>-1.<revision> of a machine",
    ),
    (
        "/build/machines/<volume>/<name>/<name>-<toolchain>",
        "bootstrapped copy of that revision; names that begin so belong to the agent",
    ),
    (
        "/build/machines/<volume>/<name>/<name>-<toolchain>-@warm.<instance>",
        "template of the copy (--warm)",
    ),
    (
        "/build/tftp/toolchain/<toolchain>/",
        "files that guests fetch when they are bootstrapped",
    ),
    (
        "/run/bbot-agent/<toolchain>-<instance>/",
        "agent.lock, status.json, and the sockets of the guest",
    ),
    (
        "/var/lib/bbot-agent/<toolchain>-<instance>/",
        "the journal of tasks and undelivered results; aside/ holds those that are no longer sent, \
         failed/ the evidence of failed guests",
    ),
];
