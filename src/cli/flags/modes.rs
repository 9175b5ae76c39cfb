//! Modes of the program, and sources of options.

use super::super::{AboutText, Format, Shell, Unit};
use super::{Complete, Draft, FLAG, Flag, Group, Mode, Takes, put};
use crate::cli::value::{Expected, Value};

/// The words after `--check=` and `--status=`.
const FORMATS: &[(&str, Format)] = &[("text", Format::Text), ("json", Format::Json)];

/// A row of a mode other than to run.
const MODE: Flag = Flag {
    anywhere: false,
    ..FLAG
};

/// `-h`, which prints less than `--help`.
pub(super) const SUMMARY: Flag = Flag {
    name: "help",
    set: |d, _| ask(d, "-h", Mode::Print(AboutText::Summary)),
    ..MODE
};

/// Asks for a mode, by the option `name`.
fn ask(draft: &mut Draft, name: &'static str, mode: Mode) -> Result<(), Expected> {
    draft.modes.push((name, mode));
    Ok(())
}

fn format(value: Value<'_>) -> Result<Format, Expected> {
    value
        .raw
        .map_or(Ok(Format::Text), |_| value.one_of(FORMATS))
}

pub(super) const MODES: Group = Group {
    title: "Modes",
    flags: &[
        Flag {
            name: "once",
            help: "Make one turn and exit. Prints nothing if there is nothing to do, or if \
                   another agent holds the lock, as cron expects.",
            set: |d, v| put(&mut d.once, v.switch()),
            ..FLAG
        },
        Flag {
            name: "no-wait",
            help: "With --once: exit with 75 if another agent holds the lock.",
            set: |d, v| put(&mut d.no_wait, v.switch()),
            ..FLAG
        },
        Flag {
            name: "check",
            takes: Takes::Maybe("format"),
            complete: Complete::Words(&["text", "json"]),
            help: "Examine the host, and print a remedy for each problem. The examination tries \
                   what a turn needs: it makes a tap and a redirect rule, sends a request and a \
                   DHCP message of a guest by them, runs the first instructions of a guest, and \
                   removes them again. Exits with 78 if a turn is not possible. <format> is text or json.",
            set: |d, v| ask(d, "--check", Mode::Check(format(v)?)),
            ..MODE
        },
        Flag {
            name: "status",
            takes: Takes::Maybe("format"),
            complete: Complete::Words(&["text", "json"]),
            help: "Print the state of running agents. An idle agent states its reason. If several \
                   agents run and one has a guest, the first line is about memory and \
                   processors of the host. Without --toolchain-name and --instance: all agents \
                   below --run-dir. Exits with 1 if none is running. <format> is text or json.",
            set: |d, v| ask(d, "--status", Mode::Status(format(v)?)),
            ..MODE
        },
        Flag {
            name: "failed",
            help: "With --status: print the failed guests. Those whose evidence is kept below \
                   --state, the newest first. Exits with 0.",
            set: |d, v| put(&mut d.failed, v.switch()),
            ..MODE
        },
        Flag {
            name: "follow",
            help: "With --status: print the state again when it has changed, until SIGINT or \
                   SIGTERM. On a terminal it stays at one place and is up to date within a \
                   second; else each change is a block or, with json, a line.",
            set: |d, v| put(&mut d.follow, v.switch()),
            ..MODE
        },
        Flag {
            name: "console",
            takes: Takes::Maybe("machine"),
            help: "Print the console of a running guest, and follow it until the guest has ended. \
                   Its agent takes no notice. <machine>, or --toolchain-name and --instance, \
                   selects one of several guests. Exits with 1 if none is running.",
            set: |d, v| {
                d.console = v.raw.map(|_| v.word()).transpose()?;
                ask(d, "--console", Mode::Console)
            },
            ..MODE
        },
        Flag {
            name: "shell",
            takes: Takes::Value("machine"),
            help: "Run a throw-away copy of a machine with its console on the terminal. No agent \
                   is disturbed: the copy is the guest of the highest instance that is free, \
                   has room on the host like any other, and gets no task. The keys Ctrl-a x \
                   end it.",
            set: |d, v| {
                d.shell = v.word()?;
                ask(d, "--shell", Mode::Shell)
            },
            ..MODE
        },
        Flag {
            name: "resume",
            takes: Takes::Value("directory"),
            complete: Complete::Directory,
            help: "Start a failed guest again where it stood. <directory> has its evidence, and \
                   --keep-state kept it. It runs in a throw-away copy with its display on a VNC \
                   socket, and without a network, until it ends or SIGINT or SIGTERM comes in. \
                   QEMU and its options must be those of then. If only the disk was kept, the \
                   guest boots.",
            set: |d, v| {
                d.resume = v.path("directory")?;
                ask(d, "--resume", Mode::Resume)
            },
            ..MODE
        },
        Flag {
            name: "gc",
            help: "Remove what crashed agents left behind, and exit. Limited to the agents of \
                   this toolchain and instance.",
            set: |d, _| ask(d, "--gc", Mode::Gc),
            ..MODE
        },
        Flag {
            name: "dry-run",
            help: "With --gc: print each path with the reason, and remove nothing.",
            set: |d, v| put(&mut d.dry_run, v.switch()),
            ..MODE
        },
        Flag {
            name: "dump-machines",
            help: "Print the headers of all machines and exit. Machines are bootstrapped as \
                   needed.",
            set: |d, _| ask(d, "--dump-machines", Mode::DumpMachines),
            ..MODE
        },
        Flag {
            name: "dump-task",
            help: "Wait for a task, print it and exit. With --once the agent does not wait.",
            set: |d, v| put(&mut d.dump_task, v.switch()),
            ..MODE
        },
        Flag {
            name: "dump-result",
            help: "Perform one task, print its result and exit. The result is not sent.",
            set: |d, v| put(&mut d.dump_result, v.switch()),
            ..MODE
        },
        Flag {
            name: "print-unit",
            takes: Takes::Value("unit"),
            complete: Complete::Words(&["service", "once", "timer", "needrestart"]),
            help: "Print a systemd unit and exit. <unit> is service (bbot-agent@.service, whose \
                   instance is the toolchain), once (bbot-agent-once@.service), timer \
                   (bbot-agent-once@.timer) or needrestart (a file for needrestart's conf.d that \
                   keeps it from restarting these services).",
            set: |d, v| {
                let unit = v.one_of(&[
                    ("service", Unit::Service),
                    ("once", Unit::Once),
                    ("timer", Unit::Timer),
                    ("needrestart", Unit::Needrestart),
                ])?;
                ask(d, "--print-unit", Mode::Print(AboutText::Unit(unit)))
            },
            ..MODE
        },
        Flag {
            name: "print-man",
            help: "Print the manual page and exit.",
            set: |d, _| ask(d, "--print-man", Mode::Print(AboutText::Manual)),
            ..MODE
        },
        Flag {
            name: "print-completion",
            takes: Takes::Value("shell"),
            complete: Complete::Words(&["bash", "zsh", "fish"]),
            help: "Print the completion of a shell and exit. <shell> is bash, zsh or fish.",
            set: |d, v| {
                let shell = v.one_of(&[
                    ("bash", Shell::Bash),
                    ("zsh", Shell::Zsh),
                    ("fish", Shell::Fish),
                ])?;
                ask(
                    d,
                    "--print-completion",
                    Mode::Print(AboutText::Completion(shell)),
                )
            },
            ..MODE
        },
        Flag {
            name: "print-licenses",
            help: "Print the linked components and exit. Each has its version and license.",
            set: |d, _| ask(d, "--print-licenses", Mode::Print(AboutText::Licenses)),
            ..MODE
        },
        Flag {
            name: "version",
            short: Some('V'),
            help: "Print the version and exit.",
            set: |d, _| ask(d, "--version", Mode::Print(AboutText::Version)),
            ..MODE
        },
        Flag {
            name: "help",
            short: Some('h'),
            help: "Print this help and exit. -h prints a short one.",
            set: |d, _| ask(d, "--help", Mode::Print(AboutText::Help)),
            ..MODE
        },
    ],
};

pub(super) const SOURCES: Group = Group {
    title: "Option files",
    flags: &[Flag {
        name: "options-file",
        takes: Takes::Value("file"),
        complete: Complete::File,
        repeats: true,
        help: "Read options from <file>. A line holds one option, with its value after a blank or \
               =, or one controller. Empty lines and lines that begin with # are ignored. The \
               environment variable BBOT_AGENT_OPTIONS may hold options as well. The command \
               line takes precedence over the environment, and the environment over files; a \
               list replaces that of lower precedence.",
        set: |d, v| {
            d.files.push(v.path("file")?);
            Ok(())
        },
        ..FLAG
    }],
};
