//! The way that a machine is run, as text: for comparison, and to run it again.

use std::path::{Path, PathBuf};

use super::accel::host_processor;
use super::firmware::Firmware;
use super::qemu::{self, Descriptors, Purpose, Spec};
use super::{Accel, Memory};
use crate::cgroup::Cgroups;
use crate::error::Result;
use crate::json::Value;
use crate::network::Mac;
use crate::platform::Architecture;
use crate::sys::process::Credentials;

/// Numbers that stand for descriptors.
const FIXED: Descriptors = Descriptors {
    tap: 0,
    monitor: 1,
    operator: 2,
    console: 3,
    vnc_directory: 4,
    agent: 5,
    tpm: 6,
};

/// The command line with fixed descriptors, for comparison.
pub fn command_line(spec: &Spec) -> String {
    let argv = qemu::argv(spec, &FIXED);
    let words: Vec<_> = argv.iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// The first difference of two command lines, as in "QEMU's option -m was 1G, and is 2G".
pub fn changed_option(was: &str, is: &str) -> Option<String> {
    let (mut was, mut is) = (was.split(' '), is.split(' '));
    let mut option = "";
    loop {
        let (was, is) = (was.next(), is.next());
        if was == is {
            let word = was?;
            if word.starts_with('-') {
                option = word;
            }
            continue;
        }
        let (was, is) = (was.unwrap_or("nothing"), is.unwrap_or("nothing"));
        let what = match was.starts_with('-') || is.starts_with('-') {
            true => "an option of QEMU".to_owned(),
            false => format!("QEMU's option {option}"),
        };
        return Some(format!("{what} was {was}, and is {is}"));
    }
}

/// The command line without what differs when a guest is started again: its directory, its
/// tap, its display, and the file with its memory.
fn comparable(spec: &Spec) -> String {
    let memory = match spec.memory.is_warm() {
        true => Memory::Saved,
        false => Memory::Anonymous,
    };
    command_line(&Spec {
        directory: "/".into(),
        tap: String::new(),
        display: None,
        memory,
        ..spec.clone()
    })
}

/// The facts by which a machine can be run again as it is run now.
pub fn record(spec: &Spec) -> Result<Value> {
    let path = |path: &Path| Value::from(path.display().to_string());
    let options = spec.options.as_ref().map(|options| {
        let words = options.iter().map(|word| Value::from(word.as_str()));
        Value::Array(words.collect())
    });
    let firmware = spec.firmware.as_ref().map(|firmware| {
        Value::object([
            ("code", path(&firmware.code)),
            ("template", path(&firmware.template)),
        ])
    });
    // An emulated processor depends on QEMU alone.
    let processor = match spec.accel {
        Accel::Kvm => Some(host_processor()?),
        Accel::Tcg => None,
    };
    let reboots = match spec.purpose {
        Purpose::Bootstrap { reboots } => Some(u64::from(reboots)),
        Purpose::Build => None,
    };
    Ok(Value::object([
        ("label", Value::from(spec.label.as_str())),
        ("qemu", path(&spec.qemu)),
        ("architecture", spec.architecture.name().into()),
        ("accel", spec.accel.to_string().into()),
        ("processor", processor.into()),
        ("cpus", u64::from(spec.cpus).into()),
        ("ram_kb", spec.ram_kb.into()),
        ("mac", spec.mac.to_string().into()),
        ("options", options.unwrap_or(Value::Null)),
        ("firmware", firmware.unwrap_or(Value::Null)),
        ("tpm", spec.tpm.is_some().into()),
        ("reboots", reboots.into()),
        (
            "user",
            spec.user.as_ref().map(|user| u64::from(user.uid)).into(),
        ),
        ("warm", spec.memory.is_warm().into()),
        ("command", comparable(spec).into()),
    ]))
}

/// A machine that was run, by its record.
#[derive(Clone, Debug)]
pub struct RecordedMachine {
    /// The machine in diagnostics.
    pub label: String,
    /// The program.
    pub qemu: PathBuf,
    /// The version of QEMU, as `7.2.22`.
    pub version: String,
    /// The accelerator.
    pub accel: Accel,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in kB.
    pub ram_kb: u64,
    /// The user of QEMU, by number, if it was not that of the agent.
    pub user: Option<u64>,
    /// Whether its memory is in the file of its state.
    pub has_memory: bool,
    architecture: Architecture,
    processor: Option<String>,
    mac: Mac,
    options: Option<Vec<String>>,
    firmware: Option<Firmware>,
    has_tpm: bool,
    purpose: Purpose,
    is_warm: bool,
    command: String,
}

impl RecordedMachine {
    /// Reads a record; `None` if it is not one.
    pub fn parse(record: &Value) -> Option<RecordedMachine> {
        let text = |value: &Value, name: &str| value.get(name)?.as_str().map(str::to_owned);
        let number = |name: &str| record.get(name)?.as_u64();
        let truth = |name: &str| record.get(name)?.as_bool();
        let words = |words: &[Value]| -> Option<Vec<String>> {
            let words = words.iter().map(|word| word.as_str().map(str::to_owned));
            words.collect()
        };
        let options = record.get("options")?.as_array().map(words);
        let firmware = record.get("firmware")?;
        let firmware = firmware.as_object().map(|_| {
            Some(Firmware {
                code: text(firmware, "code")?.into(),
                template: text(firmware, "template")?.into(),
            })
        });
        let accel = text(record, "accel")?;
        let all = [Accel::Kvm, Accel::Tcg];
        Some(RecordedMachine {
            label: text(record, "label")?,
            qemu: text(record, "qemu")?.into(),
            version: text(record, "version")?,
            accel: all.into_iter().find(|one| one.to_string() == accel)?,
            cpus: number("cpus")?.try_into().ok()?,
            ram_kb: number("ram_kb")?,
            user: number("user"),
            has_memory: truth("memory")?,
            architecture: Architecture::named(&text(record, "architecture")?)?,
            processor: text(record, "processor"),
            mac: text(record, "mac")?.parse().ok()?,
            options: match options {
                None => None,
                Some(words) => Some(words?),
            },
            firmware: match firmware {
                None => None,
                Some(firmware) => Some(firmware?),
            },
            has_tpm: truth("tpm")?,
            purpose: match number("reboots") {
                None => Purpose::Build,
                Some(reboots) => Purpose::Bootstrap {
                    reboots: reboots.try_into().ok()?,
                },
            },
            is_warm: truth("warm")?,
            command: text(record, "command")?,
        })
    }

    /// The specification to run it again.
    pub fn spec(&self, rerun: Rerun) -> Spec {
        Spec {
            label: self.label.clone(),
            qemu: rerun.qemu,
            architecture: self.architecture,
            accel: self.accel,
            cpus: self.cpus,
            ram_kb: self.ram_kb,
            memory: match self.has_memory {
                true => Memory::Loaded {
                    is_warm: self.is_warm,
                },
                false => Memory::Anonymous,
            },
            source: rerun.source,
            directory: rerun.directory,
            mac: self.mac,
            bridge: rerun.bridge,
            tap: rerun.tap,
            firmware: self.firmware.clone(),
            tpm: self.has_tpm.then(|| self.architecture.tpm_device()),
            options: self.options.clone(),
            purpose: self.purpose,
            run_dir: rerun.run_dir,
            display: None,
            user: rerun.user,
            cgroups: rerun.cgroups,
        }
    }

    /// The difference between how it was run and `spec`, which QEMU of `version` runs, if
    /// its memory cannot be loaded because of it.
    pub fn difference(&self, spec: &Spec, version: &str) -> Result<Option<String>> {
        let differs = |what: &str, was: &str, is: &str| {
            (was != is).then(|| format!("{what} was {was}, and is {is}"))
        };
        // The rest is the version of the package.
        let version = version.split(' ').next().unwrap_or_default();
        let mut difference = differs("QEMU", &self.version, version);
        if let Some(was) = &self.processor {
            difference = difference.or(differs("the processor", was, &host_processor()?));
        }
        let is = comparable(spec);
        Ok(difference.or_else(|| changed_option(&self.command, &is)))
    }
}

/// The part of a specification that is another one each time.
#[derive(Clone, Debug)]
pub struct Rerun {
    /// The program.
    pub qemu: PathBuf,
    /// The subvolume that the snapshot was taken of.
    pub source: PathBuf,
    /// The snapshot.
    pub directory: PathBuf,
    /// The bridge for a machine that is started by hand.
    pub bridge: String,
    /// The name of the tap.
    pub tap: String,
    /// The directory for sockets and the console log.
    pub run_dir: PathBuf,
    /// The user of QEMU.
    pub user: Option<Credentials>,
    /// The place of its cgroup, if one was delegated.
    pub cgroups: Option<Cgroups>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rerun() -> Rerun {
        Rerun {
            qemu: "qemu-system-x86_64".into(),
            source: "/m/kept".into(),
            directory: "/m/scratch".into(),
            bridge: "br1".to_owned(),
            tap: "tap9".to_owned(),
            run_dir: "/run/9".into(),
            user: None,
            cgroups: None,
        }
    }

    fn spec() -> Spec {
        Spec {
            label: "m".to_owned(),
            qemu: "/usr/bin/qemu-system-x86_64".into(),
            architecture: Architecture::X86_64,
            accel: Accel::Tcg,
            cpus: 3,
            ram_kb: 2048,
            memory: Memory::Saved,
            source: "/m/copy".into(),
            directory: "/m/1".into(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            bridge: "br0".to_owned(),
            tap: "tap1".to_owned(),
            firmware: Some(Firmware {
                code: "/a,b".into(),
                template: "/c".into(),
            }),
            tpm: Some("tpm-crb"),
            options: Some(vec!["-nic".to_owned(), "tap,ifname=?,mac=?".to_owned()]),
            purpose: Purpose::Bootstrap { reboots: 2 },
            run_dir: "/run/1".into(),
            display: None,
            user: None,
            cgroups: None,
        }
    }

    fn recorded(spec: &Spec, has_memory: bool) -> RecordedMachine {
        let Value::Object(mut members) = record(spec).unwrap() else {
            panic!("an object");
        };
        members.push(("version".to_owned(), "7.2.22".into()));
        members.push(("memory".to_owned(), has_memory.into()));
        let text = Value::Object(members).to_string();
        RecordedMachine::parse(&Value::parse(&text).unwrap()).unwrap()
    }

    #[test]
    fn a_machine_is_run_again_as_it_was() {
        for memory in [Memory::Saved, Memory::Anonymous] {
            let spec = Spec { memory, ..spec() };
            let recorded = recorded(&spec, true);
            let again = recorded.spec(rerun());
            let is_warm = spec.memory == Memory::Saved;
            assert_eq!(again.memory, Memory::Loaded { is_warm });
            assert_eq!((again.cpus, again.ram_kb), (3, 2048));
            let version = "7.2.22 (Debian 1:7.2)";
            assert_eq!(recorded.difference(&again, version).unwrap(), None);
        }
        let disk_only = recorded(&spec(), false).spec(rerun());
        assert_eq!(disk_only.memory, Memory::Anonymous);
    }

    #[test]
    fn the_first_difference_is_named() {
        let recorded = recorded(&spec(), true);
        let again = recorded.spec(rerun());
        let differs = |spec: &Spec, version: &str| recorded.difference(spec, version).unwrap();
        let other = Spec {
            cpus: 4,
            ..again.clone()
        };
        assert_eq!(
            differs(&other, "7.2.22").as_deref(),
            Some("QEMU's option -smp was 3, and is 4")
        );
        assert_eq!(
            differs(&other, "10.0.2").as_deref(),
            Some("QEMU was 7.2.22, and is 10.0.2")
        );
        let fewer = Spec { tpm: None, ..again };
        assert!(differs(&fewer, "7.2.22").is_some());
    }

    #[test]
    fn what_is_no_record_is_none() {
        for text in ["{}", "[]", "{\"label\":1}"] {
            let value = Value::parse(text).unwrap();
            assert!(RecordedMachine::parse(&value).is_none(), "{text}");
        }
    }
}
