//! Controllers, and the key for those that authenticate their agents.

use std::fs;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::Finding;
use crate::auth;
use crate::cli::Options;
use crate::controller::address::{ControllerAddress, ControllerArgument};
use crate::controller::failure::{Failure, FailureClass};
use crate::controller::http::{Body, Client, Settings};
use crate::controller::url::Url;
use crate::error::{Class, word};
use crate::interactive;
use crate::lock;
use crate::manifest::InteractiveMode;
use crate::network::NetworkClaim;
use crate::watch::Watch;

/// The key, if there is one: readable, RSA, and a signature made with it.
pub(super) fn key(options: &Options, watch: &Watch) -> Vec<Finding> {
    const SUBJECT: &str = "key";
    let Some(path) = &options.auth_key else {
        return vec![Finding::good(
            SUBJECT,
            "none: controllers that authenticate their agents have no tasks for this one",
        )];
    };
    let mut settings = auth::KeySettings::new(path);
    settings.openssl.clone_from(&options.openssl);
    settings.options.clone_from(&options.openssl_options);
    vec![match auth::Key::open(settings, watch) {
        Ok(key) => Finding::good(SUBJECT, format!("fingerprint {}", key.fingerprint())),
        Err(error) => Finding::error(SUBJECT, &error),
    }]
}

/// Every controller of the command line.
pub(super) fn all(options: &Options, watch: &Watch) -> Vec<Finding> {
    const SUBJECT: &str = "controller";
    if options.controllers.is_empty() {
        return vec![
            Finding::warning(SUBJECT, "none on the command line")
                .remedy("name them, too: bbot-agent --check [options] <url>..."),
        ];
    }
    let client = Client::new(
        &Settings {
            connect_timeout: options.connect_timeout,
            request_timeout: options.connect_timeout.min(options.request_timeout),
            connect_retries: 0,
            ca_file: options.ca_file.clone(),
            proxy: options.proxy.clone(),
        },
        watch,
    );
    let client = match client {
        Ok(client) => client,
        Err(error) => return vec![Finding::error(SUBJECT, &error)],
    };
    let mut findings = Vec::new();
    for argument in &options.controllers {
        findings.push(match ControllerArgument::parse(argument) {
            Err(error) => Finding::error(SUBJECT, &error.with_class(Class::Config)),
            Ok(ControllerArgument { address, .. }) => match address {
                ControllerAddress::Directory(path) => directory(SUBJECT, &path),
                ControllerAddress::Http(url) => http(SUBJECT, &client, &url),
            },
        });
    }
    findings
}

/// Examines a directory that serves as controller.
fn directory(subject: &str, path: &Path) -> Finding {
    for name in ["tasks", "results"] {
        let part = path.join(name);
        // The agent makes results/ when it has a result.
        let there = match part.exists() || name == "tasks" {
            true => &part,
            false => path,
        };
        if let Err(errno) = access(there, AccessFlags::W_OK | AccessFlags::X_OK) {
            return super::host::unwritable(subject, there, errno);
        }
    }
    let tasks = path.join("tasks");
    let entries = fs::read_dir(&tasks).into_iter().flatten().flatten();
    let others = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && !name.ends_with(".manifest"));
    if let Some(name) = others.min() {
        let file = tasks.join(&name);
        let text = format!(
            "{} is no task: its name does not end in .manifest",
            file.display()
        );
        let (from, to) = (word(&file), word(&tasks.join(format!("{name}.manifest"))));
        return Finding::warning(subject, text).remedy(format!("name it so: mv {from} {to}"));
    }
    Finding::good(subject, format!("{}, a directory", path.display()))
}

/// Examines whether the controller answers. An empty request is no request for a task,
/// and most controllers answer it with status 400.
fn http(subject: &str, client: &Client, url: &Url) -> Finding {
    let secure = match url.scheme() {
        "https" => ", certificate verified",
        _ => "",
    };
    let failure: Failure = match client.post(url, "text/manifest", &Body::Bytes(b""), 0) {
        Ok(_) => return Finding::good(subject, format!("{url} answers{secure}")),
        Err(failure) => failure,
    };
    let text = format!("{url}: {failure}");
    let finding = match failure.class() {
        FailureClass::Client(404 | 410) => Finding::failure(subject, text)
            .remedy("correct its path; that of build2's brep is: /?build-task"),
        FailureClass::Client(code) => {
            return Finding::good(subject, format!("{url} answers{secure} (status {code})"));
        }
        FailureClass::Server(_) => Finding::warning(subject, text).remedy(
            "its server has an internal fault; its administrator finds the reason in its log",
        ),
        FailureClass::Name => Finding::failure(subject, text)
            .remedy("correct the servers for names in /etc/resolv.conf")
            .remedy("or write the address down: echo '<address> <host>' >>/etc/hosts"),
        FailureClass::Connect | FailureClass::Timeout => Finding::failure(subject, text)
            .remedy("start it, and let firewalls pass its port")
            .remedy("or name the proxy on the way to it: --proxy <url>"),
        _ => Finding::failure(subject, text),
    };
    failure
        .hints()
        .iter()
        .fold(finding, |finding, hint| finding.remedy(hint.as_str()))
}

/// The display and the login of interactive builds, if they are taken.
pub(super) fn interactive(options: &Options, _watch: &Watch) -> Vec<Finding> {
    const SUBJECT: &str = "interactive builds";
    if options.interactive == InteractiveMode::No {
        return Vec::new();
    }
    /// The longest path of a socket in bytes (unix(7)).
    const MAX_SOCKET: usize = 107;
    let run_dir = lock::directory(&options.run_dir, &options.toolchain_name, options.instance);
    let socket = interactive::vnc_path(&run_dir);
    // An agent with these options that runs has the port itself.
    let claim = |()| match interactive::display(options) {
        Some(display) if !lock::is_held(&run_dir) => {
            match NetworkClaim::display(display.address.port())? {
                Some(_) => Ok(()),
                None => Err(display.claimed()),
            }
        }
        _ => Ok(()),
    };
    let probed = interactive::probe(options).and_then(claim);
    vec![match probed.and_then(|()| interactive::login(options)) {
        Ok(_) if options.interactive_vnc.is_none() && socket.as_os_str().len() > MAX_SOCKET => {
            let text = format!(
                "clients cannot connect to a path this long: {}",
                socket.display()
            );
            Finding::warning(SUBJECT, text).remedy("name a shorter one: --run-dir <dir>")
        }
        Ok(login) => Finding::good(SUBJECT, format!("users log in at {login}")),
        Err(error) => Finding::error(SUBJECT, &error),
    }]
}
