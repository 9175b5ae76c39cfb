//! Modes of the program, and sources of options.

use super::super::{Format, Shell, Unit};
use super::SHORT;
use super::{Complete, FLAG, Flag, Group, Mode, Takes, put};

/// The words after `--check=` and `--status=`.
const FORMATS: &[(&str, Format)] = &[("text", Format::Text), ("json", Format::Json)];

/// A row of something to do other than to run.
const MODE: Flag = Flag {
    anywhere: false,
    ..FLAG
};

pub(super) const MODES: Group = Group {
    title: "What to do",
    flags: &[
        Flag {
            name: "once",
            help: "Make one turn and exit, as fits cron: silent when there was nothing to do, or \
                   when another agent holds the lock.",
            set: |d, v| put(&mut d.once, v.switch()),
            ..FLAG
        },
        Flag {
            name: "no-wait",
            help: "With --once: exit with 75 when another agent holds the lock.",
            set: |d, v| put(&mut d.no_wait, v.switch()),
            ..FLAG
        },
        Flag {
            name: "check",
            takes: Takes::Maybe("format"),
            complete: Complete::Words(&["text", "json"]),
            help: "Examine the host: everything that a turn needs, what was found, and what to \
                   type to mend it. Changes nothing. Exits with 78 if something is missing. \
                   <format> is text or json.",
            set: |d, v| {
                let format = v.raw.map_or(Ok(Format::Text), |_| v.one_of(FORMATS))?;
                d.modes.push(("--check", Mode::Check(format)));
                Ok(())
            },
            ..MODE
        },
        Flag {
            name: "status",
            takes: Takes::Maybe("format"),
            complete: Complete::Words(&["text", "json"]),
            help: "Say what the running agent is doing, or why it is idle. Without \
                   --toolchain-name and --instance: every agent under --run-dir. \
                   Exits with 1 if none is running.",
            set: |d, v| {
                let format = v.raw.map_or(Ok(Format::Text), |_| v.one_of(FORMATS))?;
                d.modes.push(("--status", Mode::Status(format)));
                Ok(())
            },
            ..MODE
        },
        Flag {
            name: "gc",
            help: "Remove what crashed agents of this toolchain and instance left behind, and \
                   exit.",
            set: |d, _| {
                d.modes.push(("--gc", Mode::Gc));
                Ok(())
            },
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
            help: "Bootstrap machines as needed, print their headers and exit.",
            set: |d, _| {
                d.modes.push(("--dump-machines", Mode::DumpMachines));
                Ok(())
            },
            ..MODE
        },
        Flag {
            name: "dump-task",
            help: "Print the task that was received and exit.",
            set: |d, v| put(&mut d.dump_task, v.switch()),
            ..MODE
        },
        Flag {
            name: "dump-result",
            help: "Perform one task, print its result in place of uploading it, and exit.",
            set: |d, v| put(&mut d.dump_result, v.switch()),
            ..MODE
        },
        Flag {
            name: "print-unit",
            takes: Takes::Value("unit"),
            complete: Complete::Words(&["service", "once", "timer"]),
            help: "Print a systemd unit: service (bbot-agent@.service, instance = toolchain), \
                   once (bbot-agent-once@.service) or timer (bbot-agent-once@.timer).",
            set: |d, v| {
                let unit = v.one_of(&[
                    ("service", Unit::Service),
                    ("once", Unit::Once),
                    ("timer", Unit::Timer),
                ])?;
                d.modes.push(("--print-unit", Mode::PrintUnit(unit)));
                Ok(())
            },
            ..MODE
        },
        Flag {
            name: "print-man",
            help: "Print the manual page.",
            set: |d, _| {
                d.modes.push(("--print-man", Mode::PrintMan));
                Ok(())
            },
            ..MODE
        },
        Flag {
            name: "print-completion",
            takes: Takes::Value("shell"),
            complete: Complete::Words(&["bash"]),
            help: "Print the completion for a shell: bash.",
            set: |d, v| {
                let shell = v.one_of(&[("bash", Shell::Bash)])?;
                d.modes
                    .push(("--print-completion", Mode::PrintCompletion(shell)));
                Ok(())
            },
            ..MODE
        },
        Flag {
            name: "print-licenses",
            help: "Print what is linked into this program, with versions and licenses.",
            set: |d, _| {
                d.modes.push(("--print-licenses", Mode::PrintLicenses));
                Ok(())
            },
            ..MODE
        },
        Flag {
            name: "version",
            help: "Print the version and exit; also -V.",
            set: |d, _| {
                d.modes.push(("--version", Mode::Version));
                Ok(())
            },
            ..MODE
        },
        Flag {
            name: "help",
            help: "Print this text and exit; -h prints a short form.",
            set: |d, v| {
                let is_short = v.raw.is_some_and(|raw| raw == SHORT);
                let mode = if is_short { Mode::Usage } else { Mode::Help };
                d.modes.push(("--help", mode));
                Ok(())
            },
            ..MODE
        },
    ],
};

pub(super) const SOURCES: Group = Group {
    title: "Options from elsewhere",
    flags: &[Flag {
        name: "options-file",
        takes: Takes::Value("file"),
        complete: Complete::File,
        repeats: true,
        help: "Read options from <file>, one a line, with its value after a blank or =; a line \
               that does not begin with a dash is a controller; empty lines and lines that \
               begin with # are skipped. The environment variable BBOT_AGENT_OPTIONS may hold \
               options, too. The command line wins over the environment, and that over the \
               file; a list that wins replaces the one that loses.",
        set: |d, v| {
            d.files.push(v.path("file")?);
            Ok(())
        },
        ..FLAG
    }],
};
