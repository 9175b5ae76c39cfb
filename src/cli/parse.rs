//! From the sources to the one thing that is asked for.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::flags::{self, Complete, Draft, Mode};
use super::interactive;
use super::options::{Dump, Turns};
use super::proxies;
use super::sources::{self, Origin, Setting};
use super::{AboutText, Invocation, Options, StatusOf};
use crate::error::Result;

/// Reads the command line (without the program's name) and the sources that it
/// and the environment name. `env` looks up an environment variable.
///
/// # Errors
///
/// Of class [`Class::Usage`](crate::error::Class::Usage), all of them: an
/// unknown option, a missing or wrong value, options that do not go together,
/// a directory that is none, an unreadable option file, no controller.
pub fn parse<I>(args: I, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Invocation>
where
    I: IntoIterator<Item = OsString>,
{
    let command_line = sources::words(args, &Origin::CommandLine)?;
    let mut draft = flags::defaults();
    sources::store(&mut draft, &command_line)?;
    let mode = mode(&draft)?;
    if let Some(Mode::Print(text)) = mode {
        // Texts are printed whatever the other sources say.
        return Ok(Invocation::Print(text));
    }

    let environment = match env(sources::ENVIRONMENT) {
        Some(text) => sources::environment(&text)?,
        None => Vec::new(),
    };
    let mut named = flags::defaults();
    sources::store(&mut named, &environment)?;
    if !draft.files.is_empty() {
        named.files.clone_from(&draft.files);
    }
    let mut file = Vec::new();
    for path in &named.files {
        file.append(&mut sources::file(path)?);
    }

    let mut draft = flags::defaults();
    for source in [&file, &environment, &command_line] {
        sources::store(&mut draft, source)?;
    }
    let settings: Vec<Setting> = [file, environment, command_line]
        .into_iter()
        .flatten()
        .collect();
    invocation(draft, mode, &settings, env)
}

/// The one mode that was asked for, if any.
fn mode(draft: &Draft) -> Result<Option<Mode>> {
    for wanted in [AboutText::Help, AboutText::Summary, AboutText::Version].map(Mode::Print) {
        if draft.modes.iter().any(|(_, mode)| *mode == wanted) {
            return Ok(Some(wanted));
        }
    }
    if let Some(pair) = draft.modes.windows(2).find(|pair| pair[0] != pair[1]) {
        return Err(clash(pair[0].0, pair[1].0));
    }
    Ok(draft.modes.first().map(|(_, mode)| *mode))
}

pub(super) fn clash(a: &str, b: &str) -> crate::error::Error {
    let text = format!("{a} and {b} do not go together");
    sources::usage(&Origin::CommandLine, text)
}

fn invocation(
    mut draft: Draft,
    mode: Option<Mode>,
    settings: &[Setting],
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Invocation> {
    let wrong = |text: &str| Err(sources::usage(&Origin::CommandLine, text));
    if draft.dry_run && mode != Some(Mode::Gc) {
        return wrong("--dry-run is for --gc only");
    }
    if draft.failed && !matches!(mode, Some(Mode::Status(_))) {
        return wrong("--failed is for --status only");
    }
    if draft.follow && (draft.failed || !matches!(mode, Some(Mode::Status(_)))) {
        return wrong("--follow is for --status without --failed only");
    }
    if draft.no_wait && !draft.once {
        return wrong("--no-wait is for --once only");
    }
    // There is one task to perform.
    let once = draft.once || draft.options.fake_request.is_some();
    draft.options.turns = match (once, draft.no_wait) {
        (false, _) => Turns::Endless,
        (true, false) => Turns::Once,
        (true, true) => Turns::OnceOrBusy,
    };
    draft.options.dump = match (draft.dump_task, draft.dump_result) {
        (false, false) => None,
        (true, false) => Some(Dump::Task),
        (false, true) => Some(Dump::Result),
        (true, true) => return Err(clash("--dump-task", "--dump-result")),
    };
    if draft.options.auth_key.is_none() {
        draft.options.auth_key = credential(env, "auth-key");
    }
    if draft.options.vnc_password.is_none() {
        draft.options.vnc_password = credential(env, "vnc-password");
    }
    interactive::require_consistent(&draft.options)?;
    draft.options.proxy = proxies::choose(draft.proxy, env);
    let options = Box::new(draft.options);
    let Some(mode) = mode else {
        directories(settings)?;
        if options.controllers.is_empty() && options.fake_request.is_none() {
            return wrong("controller url expected");
        }
        return Ok(Invocation::Run(options));
    };
    if matches!(mode, Mode::Shell | Mode::DumpMachines) {
        directories(settings)?;
    }
    Ok(match mode {
        Mode::Check(format) => Invocation::Check(options, format),
        Mode::Status(format) if draft.failed => {
            Invocation::Failed(status_of(&options, &options.state, settings), format)
        }
        Mode::Status(format) if draft.follow => {
            Invocation::Follow(status_of(&options, &options.run_dir, settings), format)
        }
        Mode::Status(format) => {
            Invocation::Status(status_of(&options, &options.run_dir, settings), format)
        }
        Mode::Console => {
            let of = status_of(&options, &options.run_dir, settings);
            Invocation::Console(of, draft.console)
        }
        Mode::Shell => Invocation::Shell(options, draft.shell),
        Mode::Resume => Invocation::Resume(options, draft.resume),
        Mode::Gc => Invocation::Gc {
            options,
            dry_run: draft.dry_run,
        },
        Mode::DumpMachines => Invocation::DumpMachines(options),
        Mode::Print(text) => Invocation::Print(text),
    })
}

/// The agent that the settings name, or all agents below `directory`.
fn status_of(options: &Options, directory: &Path, settings: &[Setting]) -> StatusOf {
    let directory = directory.to_owned();
    let named = |setting: &Setting| {
        setting
            .flag
            .is_some_and(|flag| matches!(flag.name, "toolchain-name" | "instance"))
    };
    if settings.iter().any(named) {
        StatusOf::One {
            directory,
            toolchain_name: options.toolchain_name.clone(),
            instance: options.instance,
        }
    } else {
        StatusOf::All { directory }
    }
}

/// A credential that systemd handed over (systemd.exec(5), `LoadCredential=`).
fn credential(env: &dyn Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env("CREDENTIALS_DIRECTORY")?).join(name);
    path.is_file().then_some(path)
}

/// Requires that named directories exist. `--state` and `--run-dir` are made when
/// they are missing.
fn directories(settings: &[Setting]) -> Result<()> {
    let mut seen = Vec::new();
    // The last value of an option is the one in effect.
    for setting in settings.iter().rev() {
        let (Some(flag), Some(value)) = (setting.flag, &setting.value) else {
            continue;
        };
        if flag.complete != Complete::Directory
            || matches!(flag.name, "state" | "run-dir")
            || seen.contains(&flag.name)
        {
            continue;
        }
        seen.push(flag.name);
        let path: &OsStr = value;
        let reason = match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => continue,
            Ok(_) => "Not a directory".to_owned(),
            Err(error) => crate::error::reason(&error),
        };
        let text = format!(
            "invalid value '{}' of option '--{}': expected a directory: {reason}",
            path.display(),
            flag.name
        );
        return Err(sources::usage(&setting.origin, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Format, Unit};
    use super::*;
    use crate::error::Class;
    use crate::settings::Hold;

    fn parsed(line: &str, environment: &str) -> Result<Invocation> {
        parse(line.split_whitespace().map(OsString::from), &|name| {
            (name == sources::ENVIRONMENT && !environment.is_empty())
                .then(|| OsString::from(environment))
        })
    }

    fn options(line: &str, environment: &str) -> Options {
        match parsed(line, environment).unwrap() {
            Invocation::Run(options) => *options,
            other => panic!("{other:?}"),
        }
    }

    fn refused(line: &str) -> String {
        let error = parsed(line, "").unwrap_err();
        assert_eq!(error.class(), Class::Usage, "{line}");
        assert!(
            error
                .hints()
                .any(|hint| hint == "run bbot-agent --help for details"),
            "{line}"
        );
        error.to_string()
    }

    #[test]
    fn without_options_the_documented_defaults_hold() {
        let options = options("https://example.org", "");
        let expected = Options {
            controllers: vec!["https://example.org".to_owned()],
            ..Options::default()
        };
        assert_eq!(options, expected);
        assert_eq!(options.poll_interval, Duration::from_secs(60));
        assert_eq!(options.hold, Hold::For(Duration::from_secs(600)));
        assert_eq!(options.ram, 4 << 20);
        assert_eq!(options.bridge, "br1");
        assert_eq!(options.result_limit, 14 << 20);
        assert_eq!(options.min_free.of(1 << 40), 10 << 30);
    }

    #[test]
    fn the_command_line_wins_and_lists_are_replaced() {
        let environment = "--cpu 2 --ram 2G --openssl-option a --openssl-option b http://env";
        let some = options("--cpu 3 --openssl-option=c 7=http://cli", environment);
        assert_eq!((some.cpu, some.ram), (3, 2 << 20));
        assert_eq!(some.openssl_options, ["c"]);
        assert_eq!(some.controllers, ["7=http://cli"]);
        let none = options("", environment);
        assert_eq!(none.openssl_options, ["a", "b"]);
        assert_eq!(none.controllers, ["http://env"]);
    }

    #[test]
    fn a_switch_of_a_losing_source_can_be_turned_off() {
        assert!(options("http://a", "--legacy-request").legacy_request);
        assert!(!options("--legacy-request=no http://a", "--legacy-request").legacy_request);
    }

    #[test]
    fn a_wrong_command_line_names_the_option_and_what_was_expected() {
        for (line, text) in [
            ("", "controller url expected"),
            ("--fro", "unknown option '--fro'"),
            ("-x", "unknown option '-x'"),
            ("--cpu", "missing value of option '--cpu': expected <num>"),
            (
                "--cpu many",
                "invalid value 'many' of option '--cpu': expected a number from 1 to 1024",
            ),
            (
                "--cpu -1",
                "invalid value '-1' of option '--cpu': expected a number from 1 to 1024",
            ),
            (
                "--machines /nowhere/at/all http://a",
                "invalid value '/nowhere/at/all' of option '--machines': expected a directory: \
                 No such file or directory",
            ),
            (
                "--tftp /dev/null http://a",
                "invalid value '/dev/null' of option '--tftp': expected a directory: \
                 Not a directory",
            ),
            (
                "--legacy-request=perhaps http://a",
                "invalid value 'perhaps' of option '--legacy-request': expected nothing, or yes \
                 or no",
            ),
            (
                "--check=xml",
                "invalid value 'xml' of option '--check': expected text or json",
            ),
            (
                "--check --status",
                "--check and --status do not go together",
            ),
            (
                "--status --failed --follow",
                "--follow is for --status without --failed only",
            ),
            ("--dry-run http://a", "--dry-run is for --gc only"),
            ("--no-wait http://a", "--no-wait is for --once only"),
            (
                "--dump-task --dump-result http://a",
                "--dump-task and --dump-result do not go together",
            ),
        ] {
            assert_eq!(refused(line), text, "{line}");
        }
    }

    #[test]
    fn help_works_whatever_else_is_wrong() {
        assert_eq!(
            parsed("--help --machines /nowhere", "--nonsense").unwrap(),
            Invocation::Print(AboutText::Help)
        );
        for (line, text) in [
            ("--check --help", AboutText::Help),
            ("--check -h", AboutText::Summary),
            ("-hV", AboutText::Summary),
            ("-V", AboutText::Version),
        ] {
            let asked = parsed(line, "").unwrap();
            assert_eq!(asked, Invocation::Print(text), "{line}");
        }
        assert_eq!(
            parsed("--print-unit timer", "--nonsense").unwrap(),
            Invocation::Print(AboutText::Unit(Unit::Timer))
        );
    }

    #[test]
    fn status_is_of_one_agent_when_one_is_named() {
        let directory = PathBuf::from("/r");
        assert_eq!(
            parsed("--status=json --run-dir /r", "").unwrap(),
            Invocation::Status(
                StatusOf::All {
                    directory: directory.clone()
                },
                Format::Json
            )
        );
        assert_eq!(
            parsed("--status --failed --state /r", "--run-dir /x").unwrap(),
            Invocation::Failed(
                StatusOf::All {
                    directory: directory.clone()
                },
                Format::Text
            )
        );
        assert_eq!(
            parsed("--status", "--instance 2 --run-dir /r").unwrap(),
            Invocation::Status(
                StatusOf::One {
                    directory,
                    toolchain_name: "default".to_owned(),
                    instance: 2
                },
                Format::Text
            )
        );
    }

    #[test]
    fn the_key_may_be_a_credential() {
        let dir = std::env::temp_dir().join(format!("bbot-agent-cli-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("auth-key"), "").unwrap();
        let env =
            |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| dir.clone().into_os_string());
        let run = |args: &[&str]| match parse(args.iter().map(OsString::from), &env).unwrap() {
            Invocation::Run(options) => options.auth_key,
            other => panic!("{other:?}"),
        };
        assert_eq!(run(&["http://a"]), Some(dir.join("auth-key")));
        assert_eq!(
            run(&["--auth-key", "/k", "http://a"]),
            Some(PathBuf::from("/k"))
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
