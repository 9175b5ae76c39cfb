//! `--resume`: a failed guest is started again where it stood.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::guests::GuestHost;
use super::shell::{at_free_instance, claim};
use crate::cli::Options;
use crate::durable;
use crate::error::{self, Class, Context as _, Error, Result};
use crate::evidence::{STATE_LINK, SUMMARY};
use crate::guest::{RECORD, run_again};
use crate::json::Value;
use crate::ledger::Work;
use crate::machine::Accel;
use crate::machine::record::{RecordedMachine, Rerun};
use crate::settings::AccelChoice;
use crate::snapshot::{self, Snapshot};
use crate::status::Phase;
use crate::watch::Watch;
use crate::{diag, interactive, qemu_version};

/// The maximum size of a file of the evidence, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A guest that failed, and whose state is kept.
struct FailedMachine {
    /// The name of the machine.
    name: String,
    /// The toolchain of its copy.
    toolchain: String,
    /// The failure, and its time.
    failure: String,
    /// The subvolume with its state.
    state: PathBuf,
    /// The path that the name of the subvolume was derived from.
    target: PathBuf,
    record: RecordedMachine,
}

/// Starts the guest with its evidence in `directory` again, and runs it until it has ended
/// or a signal comes in.
pub fn resume(options: &Options, directory: &Path) -> Result<()> {
    let watch = Watch::start()?;
    let unable = || format!("unable to resume {}", directory.display());
    let failed = find(directory).context(unable)?;
    let record = &failed.record;
    let is_default = options.qemu == Options::default().qemu;
    let user = record.user.map(|user| user.to_string());
    let options = Options {
        toolchain_name: failed.toolchain.clone(),
        qemu: match is_default {
            true => record.qemu.clone(),
            false => options.qemu.clone(),
        },
        accel: match record.accel {
            Accel::Kvm => AccelChoice::Kvm,
            Accel::Tcg => AccelChoice::Tcg,
        },
        cpu: record.cpus,
        ram: record.ram_kb,
        vm_user: options.vm_user.clone().or(user),
        ..options.clone()
    };
    at_free_instance(&options, &failed.name, &watch, |host, options| {
        run(host, options, &failed, &watch).context(unable)
    })
}

fn run(
    host: &mut GuestHost<'_>,
    options: &Options,
    failed: &FailedMachine,
    watch: &Watch,
) -> Result<()> {
    let settings = host.settings()?;
    let version = qemu_version::require(&options.qemu, watch)?;
    let spec_in = |directory: &Path| {
        failed.record.spec(Rerun {
            qemu: options.qemu.clone(),
            source: failed.state.clone(),
            directory: directory.to_owned(),
            bridge: settings.bridge.clone(),
            tap: settings.tap.clone(),
            run_dir: settings.run_dir.clone(),
            user: settings.user.clone(),
            cgroups: settings.cgroups.clone(),
        })
    };
    let has_memory = failed.record.has_memory;
    if has_memory
        && let Some(difference) = failed
            .record
            .difference(&spec_in(&failed.state), &version)?
    {
        let error = Error::new(format!("its memory is for another host: {difference}"));
        let error = error.with_class(Class::Config);
        return Err(error
            .hint("name the former QEMU: --qemu <path>")
            .hint(format!("its disk is in {}", failed.state.display())));
    }
    let _claim = claim(host, Work::Resumed, &failed.name)?;
    let rest = &mut |length| watch.rest(length);
    let snapshot = Snapshot::scratch_in_turn(&failed.state, &failed.target, rest)?;
    let Some(snapshot) = snapshot else {
        return Ok(());
    };
    let spec = spec_in(snapshot.path());
    let ran = run_again(&spec, watch, || {
        watch.enter(Phase::Resumed, None);
        let how = match has_memory {
            true => "goes on where it stood",
            false => "boots: its memory was not kept",
        };
        let vnc = interactive::vnc_path(&settings.run_dir);
        let (name, tap) = (&failed.name, &spec.tap);
        let run_dir = match options.run_dir == Options::default().run_dir {
            true => String::new(),
            false => format!(" --run-dir {}", error::word(&options.run_dir)),
        };
        diag::info(format_args!(
            "the guest of machine {name} {how} ({})",
            failed.failure
        ))
        .info(format_args!("its display (VNC): {}", vnc.display()))
        .info(format_args!(
            "its console: bbot-agent --console --toolchain-name {} --instance {}{run_dir}",
            options.toolchain_name, options.instance
        ))
        .info(format_args!(
            "its network leads nowhere: tap {tap} is down, on no bridge"
        ))
        .info("SIGINT (Ctrl-c) ends it; what it changes is not kept")
        .emit();
    });
    ran.and(snapshot.close())
}

/// The failed guest with its evidence in `directory`.
fn find(directory: &Path) -> Result<FailedMachine> {
    let read = |name: &str| {
        let text = durable::read(&directory.join(name), MAX_FILE_BYTES).ok()?;
        Value::parse(&String::from_utf8(text).ok()?).ok()
    };
    if let Err(error) = File::open(directory.join(SUMMARY))
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        return Err(error).context(|| "unable to read its evidence");
    }
    let Some(summary) = read(SUMMARY) else {
        let error = Error::new(format!("it has no evidence of a failed guest ({SUMMARY})"));
        return Err(error.hint("the directories that have: bbot-agent --status --failed"));
    };
    let Ok(state) = fs::read_link(directory.join(STATE_LINK)) else {
        if directory.join(RECORD).exists() {
            let why = format!("the link to the state of the guest is gone: {STATE_LINK} in it");
            return Err(Error::new(why));
        }
        let error = Error::new("the state of the guest was not kept");
        let missing = summary.get("missing").and_then(Value::as_array);
        let missing = missing.unwrap_or_default().iter().filter_map(Value::as_str);
        let why = missing.filter(|line| line.starts_with("state: "));
        let error = why.fold(error, Error::hint);
        return Err(error.hint("agents keep it with --keep-state"));
    };
    let shown = state.display();
    if !snapshot::is_subvolume(&state)? {
        let error = Error::new(format!("the state of the guest is gone: {shown}"));
        return Err(error.hint(
            "the oldest states go when all take more than --keep-state, or less than --min-free \
             is left",
        ));
    }
    let word = |name| summary.get(name).and_then(Value::as_str).unwrap_or("?");
    let name = word("machine").to_owned();
    let target = snapshot::target_of(&state);
    let toolchain = target.as_ref().and_then(|target| {
        let file = target.file_name()?.to_str()?;
        Some(file.strip_prefix(&name)?.strip_prefix('-')?.to_owned())
    });
    let (Some(target), Some(toolchain)) = (target, toolchain) else {
        return Err(Error::new(format!("{shown} is no state of machine {name}")));
    };
    let record = read(RECORD).and_then(|record| RecordedMachine::parse(&record));
    let Some(record) = record else {
        let why = match directory.join(RECORD).exists() {
            true => format!("{RECORD} in it is damaged, or of another agent"),
            false => format!("{RECORD} in it is gone"),
        };
        return Err(Error::new(why));
    };
    Ok(FailedMachine {
        failure: format!("{}, {}", word("what"), word("time")),
        name,
        toolchain,
        state,
        target,
        record,
    })
}
