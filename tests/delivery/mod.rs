//! Deliveries to a controller that behaves as brep does.

mod artifacts;
mod beside;
mod disk;
mod exchange;
mod faults;
mod restart;
mod unsaved;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bbot_agent::auth::{self, Key};
use bbot_agent::controller::http::Settings as HttpSettings;
use bbot_agent::controller::{Assignment, Controllers};
use bbot_agent::delivery::{
    Delivery, DeliverySettings, Flushed, Now, RetryLimits, TaskRecord, UnfinishedTask,
};
use bbot_agent::manifest::{OperationResult, ResultManifest, ResultStatus, TaskRequest};
use bbot_agent::watch::Watch;

use crate::support::header;
use crate::support::http::openssl;

const TASK: &str = "name: libfoo\nversion: 1.2.3\nrepository-url: https://h/1/a\n\
                    repository-type: pkg\nmachine: linux-gcc\n";

const EXPIRY: Duration = Duration::from_secs(3 * 3600);

/// Without pauses between attempts: the tests decide when an attempt is made.
fn settings(legacy: bool) -> DeliverySettings {
    DeliverySettings {
        result_limit: 32 << 20,
        legacy,
        retry: RetryLimits {
            expiry: EXPIRY,
            first_pause: Duration::ZERO,
            longest_pause: Duration::ZERO,
        },
    }
}

/// The present time.
fn now() -> Now {
    Now::read()
}

/// An agent as far as controllers see it.
struct Agent {
    controllers: Controllers,
    delivery: Delivery,
    unfinished: Vec<UnfinishedTask>,
    watch: Watch,
    /// The time that its wall clock shows, if not the right one.
    wall: Option<Duration>,
}

impl Agent {
    fn new(state: &Path, url: &str, key: Option<&Path>) -> Agent {
        Agent::with(state, url, key, false)
    }

    fn with(state: &Path, url: &str, key: Option<&Path>, legacy: bool) -> Agent {
        let watch = Watch::start().unwrap();
        let http = HttpSettings {
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            ..HttpSettings::default()
        };
        let controllers = Controllers::new(&[url.to_owned()], &http, &watch).unwrap();
        let key = key.map(|key| Key::open(auth::KeySettings::new(key), &watch).unwrap());
        let (delivery, unfinished) = Delivery::open(state, settings(legacy), key).unwrap();
        Agent {
            controllers,
            delivery,
            unfinished,
            watch,
            wall: None,
        }
    }

    fn now(&self) -> Now {
        let now = now();
        Now {
            wall: self.wall.unwrap_or(now.wall),
            ..now
        }
    }

    fn request(&self) -> TaskRequest {
        TaskRequest {
            agent: "host".to_owned(),
            toolchain: Some(("default".to_owned(), "0.17.0".to_owned())),
            interactive: None,
            fingerprint: self.delivery.fingerprint().map(str::to_owned),
            auxiliary_ram: 0,
            machines: vec![header("linux-gcc-1", "linux-gcc").into()],
        }
    }

    fn task(&mut self) -> Option<Assignment> {
        let request = self.request();
        self.controllers.ask(0, &request).ok().flatten()
    }

    fn record(&self, assignment: &Assignment) -> TaskRecord {
        TaskRecord::new(assignment, self.delivery.stamp(self.now()))
    }

    /// Does the work, and has the result in the store.
    fn perform(&mut self, assignment: &Assignment, archive: Option<&Path>) {
        let task = self.record(assignment);
        self.delivery.accept(&task).unwrap();
        self.delivery.start(&task).unwrap();
        let mut result = ResultManifest::new(&task.name, &task.version, ResultStatus::Success);
        result.results.push(OperationResult {
            operation: "update".to_owned(),
            status: ResultStatus::Success,
            log: "c++ cxx{foo}\nld libs{foo}".to_owned(),
        });
        self.finish(&task, result, archive);
    }

    fn finish(&mut self, task: &TaskRecord, result: ResultManifest, archive: Option<&Path>) {
        let now = self.now();
        let checksum = Some("1".to_owned());
        self.delivery
            .finish(task, result, checksum, archive, now, &mut self.controllers)
            .unwrap();
    }

    fn give_back(&mut self, task: &TaskRecord) {
        let now = self.now();
        self.delivery
            .give_back(task, "the test says so", now, &mut self.controllers)
            .unwrap();
    }

    fn deliver(&mut self) -> Flushed {
        self.deliver_at(now().uptime)
    }

    fn deliver_at(&mut self, uptime: Duration) -> Flushed {
        let now = Now {
            uptime,
            ..self.now()
        };
        self.delivery.flush(now, &mut self.controllers).unwrap()
    }
}

/// A key pair: the private key, and the public one beside it.
fn key(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    openssl(dir, &format!("genrsa -out {name} 2048"));
    openssl(dir, &format!("pkey -in {name} -pubout -out {name}.pem"));
    (dir.join(name), dir.join(format!("{name}.pem")))
}

fn sent(count: usize) -> Flushed {
    Flushed {
        sent: count,
        ..Flushed::default()
    }
}

/// The only stored result.
fn stored(state: &Path) -> PathBuf {
    let mut results = fs::read_dir(state.join("results")).unwrap();
    results.next().unwrap().unwrap().path()
}
