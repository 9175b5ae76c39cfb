//! Machines and guests.

use super::{Complete, Default, FLAG, Flag, Group, Takes, put};
use crate::platform;
use crate::settings::{AccelChoice, RedirectKind};

pub(super) const MACHINES: Group = Group {
    title: "Machines",
    flags: &[
        Flag {
            name: "machines",
            takes: Takes::Value("dir"),
            complete: Complete::Directory,
            default: Default::Is("/build/machines"),
            help: "Directory of the machine volumes, on btrfs.",
            set: |d, v| put(&mut d.options.machines, v.path("directory")),
            ..FLAG
        },
        Flag {
            name: "toolchain-name",
            takes: Takes::Value("name"),
            default: Default::Is("default"),
            help: "Name of the toolchain for bootstrapping.",
            set: |d, v| put(&mut d.options.toolchain_name, v.name()),
            ..FLAG
        },
        Flag {
            name: "toolchain-num",
            takes: Takes::Value("num"),
            default: Default::Is("1"),
            help: "Number of the toolchain, 1 to 9. It appears only in the banner of \
                   --systemd-daemon.",
            set: |d, v| put(&mut d.options.toolchain_num, v.number(1, 9)),
            ..FLAG
        },
        Flag {
            name: "toolchain-lang",
            takes: Takes::Value("lang"),
            help: "Language of the toolchain. Accepted for command lines of other agents; it has \
                   no effect.",
            set: |_, v| v.word().map(drop),
            ..FLAG
        },
        Flag {
            name: "toolchain-lock",
            takes: Takes::Value("file"),
            complete: Complete::File,
            help: "Lock file (flock) that is held during bootstraps. For hosts on which agents of \
                   another kind bootstrap the same machines; agents of this kind do not need it. \
                   Empty: none.",
            set: |d, v| {
                let file = (!v.is_empty()).then(|| v.path("file")).transpose();
                put(&mut d.options.toolchain_lock, file)
            },
            ..FLAG
        },
        Flag {
            name: "toolchain-ver",
            takes: Takes::Value("version"),
            default: Default::Means("the bbot-version that the machines report"),
            help: "Version of the toolchain. It is sent to controllers as toolchain-version. \
                   Without this option only machines with the newest version are offered.",
            set: |d, v| put(&mut d.options.toolchain_ver, v.standard_version().map(Some)),
            ..FLAG
        },
        Flag {
            name: "toolchain-id",
            takes: Takes::Value("id"),
            help: "Id of the toolchain, for instance a checksum. Machines that were bootstrapped \
                   with another id are bootstrapped again; without an id they are not.",
            set: |d, v| put(&mut d.options.toolchain_id, v.text()),
            ..FLAG
        },
        Flag {
            name: "instance",
            takes: Takes::Value("num"),
            default: Default::Is("1"),
            help: "Number of this agent for its toolchain, 1 to 99.",
            set: |d, v| put(&mut d.options.instance, v.number(1, 99)),
            ..FLAG
        },
        Flag {
            name: "bootstrap-version",
            takes: Takes::Value("package=version"),
            repeats: true,
            help: "Version that a bootstrapped machine must report. A machine with an older \
                   version is bootstrapped again; a newer version is accepted.",
            set: |d, v| v.push(&mut d.options.bootstrap_versions, v.package_version()),
            ..FLAG
        },
        Flag {
            name: "min-free",
            takes: Takes::Value("space"),
            default: Default::Is("5%,10G"),
            help: "Minimum free space. A share, a size, or the smaller of both. With less, no \
                   tasks are requested.",
            set: |d, v| put(&mut d.options.min_free, v.space()),
            ..FLAG
        },
        Flag {
            name: "tftp",
            takes: Takes::Value("dir"),
            complete: Complete::Directory,
            default: Default::Is("/build/tftp"),
            help: "Root of the TFTP directories.",
            set: |d, v| put(&mut d.options.tftp, v.path("directory")),
            ..FLAG
        },
        Flag {
            name: "bridge",
            takes: Takes::Value("iface"),
            default: Default::Is("br1"),
            help: "Bridge that the guests are attached to.",
            set: |d, v| put(&mut d.options.bridge, v.interface()),
            ..FLAG
        },
        Flag {
            name: "redirect",
            takes: Takes::Value("how"),
            complete: Complete::Words(&["auto", "nft", "none"]),
            default: Default::Is("auto"),
            help: "Redirect of the guests' TFTP requests. Guests send them to 196.254.111.222 port \
                   69. nft: by rules of nf_tables (Linux 5.12 or newer). none: the bridge has that \
                   address, for one agent per bridge. auto: the first that works.",
            set: |d, v| {
                let words = [
                    ("auto", RedirectKind::Auto),
                    ("nft", RedirectKind::Nft),
                    ("none", RedirectKind::None),
                ];
                put(&mut d.options.redirect, v.one_of(&words))
            },
            ..FLAG
        },
    ],
};

pub(super) const GUESTS: Group = Group {
    title: "Guests",
    flags: &[
        Flag {
            name: "qemu",
            takes: Takes::Value("path"),
            complete: Complete::File,
            default: Default::Is(platform::HOST_QEMU),
            help: "The QEMU program. Its name tells the architecture of guests: machines of \
                   another one are left out.",
            set: |d, v| put(&mut d.options.qemu, v.path("program")),
            ..FLAG
        },
        Flag {
            name: "accel",
            takes: Takes::Value("how"),
            complete: Complete::Words(&["kvm", "tcg", "auto"]),
            default: Default::Is("kvm"),
            help: "Accelerator of the guests. kvm: the processor. tcg: emulation. auto: kvm if a \
                   guest runs with it, otherwise tcg.",
            set: |d, v| {
                let words = [
                    ("kvm", AccelChoice::Kvm),
                    ("tcg", AccelChoice::Tcg),
                    ("auto", AccelChoice::Auto),
                ];
                put(&mut d.options.accel, v.one_of(&words))
            },
            ..FLAG
        },
        Flag {
            name: "cpu",
            takes: Takes::Value("num"),
            default: Default::Is("1"),
            help: "Number of processors of a guest.",
            set: |d, v| put(&mut d.options.cpu, v.number(1, 1024)),
            ..FLAG
        },
        Flag {
            name: "ram",
            aliases: &["build-ram"],
            takes: Takes::Value("kB"),
            default: Default::Is("4194304"),
            help: "Memory of a guest. In kB, or with a unit as in 4G.",
            set: |d, v| {
                put(
                    &mut d.options.ram,
                    v.size(1024, 1024).map(|bytes| bytes / 1024),
                )
            },
            ..FLAG
        },
        Flag {
            name: "auxiliary-ram",
            takes: Takes::Value("kB"),
            default: Default::Is("0"),
            help: "Memory of the auxiliary machines of a task together, as in --ram and besides \
                   it. 0: auxiliary machines are not offered.",
            set: |d, v| {
                put(
                    &mut d.options.auxiliary_ram,
                    v.size(1024, 0).map(|bytes| bytes / 1024),
                )
            },
            ..FLAG
        },
        Flag {
            name: "vm-user",
            takes: Takes::Value("user"),
            default: Default::Means("that of the agent"),
            help: "User of the QEMU processes, by name or number.",
            set: |d, v| put(&mut d.options.vm_user, v.word().map(Some)),
            ..FLAG
        },
        Flag {
            name: "bootstrap-startup",
            takes: Takes::Value("time"),
            default: Default::Is("300"),
            help: "Bootstrap timeout, up to the first request.",
            set: |d, v| put(&mut d.options.bootstrap_startup, v.time(1)),
            ..FLAG
        },
        Flag {
            name: "bootstrap-timeout",
            takes: Takes::Value("time"),
            default: Default::Is("3600"),
            help: "Bootstrap timeout, from there to the manifest.",
            set: |d, v| put(&mut d.options.bootstrap_timeout, v.time(1)),
            ..FLAG
        },
        Flag {
            name: "bootstrap-shutdown",
            takes: Takes::Value("time"),
            default: Default::Is("300"),
            help: "Bootstrap timeout, from there to power off.",
            set: |d, v| put(&mut d.options.bootstrap_shutdown, v.time(1)),
            ..FLAG
        },
        Flag {
            name: "bootstrap-retries",
            takes: Takes::Value("num"),
            default: Default::Is("2"),
            help: "Further bootstrap attempts without a first request.",
            set: |d, v| put(&mut d.options.bootstrap_retries, v.number(0, 100)),
            ..FLAG
        },
        Flag {
            name: "bootstrap-reboots",
            takes: Takes::Value("num"),
            default: Default::Is("3"),
            help: "Reboots that a bootstrap allows. A guest that reboots once more has failed; each \
                   boot has the time of --bootstrap-startup. A build ends at the first reboot.",
            set: |d, v| put(&mut d.options.bootstrap_reboots, v.number(0, 100)),
            ..FLAG
        },
        Flag {
            name: "bootstrap-auxiliary",
            takes: Takes::Value("time"),
            default: Default::Is("900"),
            help: "Timeout of the auxiliary machines of a task, up to the last environment.",
            set: |d, v| put(&mut d.options.bootstrap_auxiliary, v.time(1)),
            ..FLAG
        },
        Flag {
            name: "build-startup",
            takes: Takes::Value("time"),
            default: Default::Is("240"),
            help: "Build timeout, up to the first request.",
            set: |d, v| put(&mut d.options.build_startup, v.time(1)),
            ..FLAG
        },
        Flag {
            name: "build-timeout",
            takes: Takes::Value("time"),
            default: Default::Is("5400"),
            help: "Build timeout, from there to the result.",
            set: |d, v| put(&mut d.options.build_timeout, v.time(1)),
            ..FLAG
        },
        Flag {
            name: "build-retries",
            takes: Takes::Value("num"),
            default: Default::Is("2"),
            help: "Further build attempts without a first request.",
            set: |d, v| put(&mut d.options.build_retries, v.number(0, 100)),
            ..FLAG
        },
        Flag {
            name: "idle-limit",
            takes: Takes::Value("time"),
            default: Default::Is("0"),
            help: "Time after which an idle guest is ended, before its other limits. A guest is idle \
                   while it uses next to no processor time, reads and writes no disk, writes nothing \
                   to its console, and moves no TFTP transfer on. 0: never.",
            set: |d, v| put(&mut d.options.idle_limit, v.time(0)),
            ..FLAG
        },
        Flag {
            name: "hold",
            takes: Takes::Value("time"),
            complete: Complete::Words(&["0", "600", "forever"]),
            default: Default::Is("600"),
            help: "Time to keep a failed guest for inspection. The guest is suspended. 0: it is \
                   not kept. forever: until the operator ends it.",
            set: |d, v| put(&mut d.options.hold, v.hold()),
            ..FLAG
        },
        Flag {
            name: "keep-failures",
            takes: Takes::Value("num"),
            default: Default::Is("20"),
            help: "Number of failed guests whose evidence is kept. It is in failed/ below the \
                   agent's directory in --state, at most 64 MiB in all; the oldest is removed \
                   first. 0: none is kept. --status --failed lists it.",
            set: |d, v| put(&mut d.options.keep_failures, v.number(0, 10000)),
            ..FLAG
        },
        Flag {
            name: "keep-state",
            takes: Takes::Maybe("size"),
            help: "Keep also the disk and the memory of failed guests, so that --resume starts them \
                   again. The states of this agent take at most <size> (20G) of the volumes; the \
                   oldest go first, also when less than --min-free would be left. The result of \
                   the task is sent before.",
            set: |d, v| put(&mut d.options.keep_state, v.size_or(20 << 30).map(Some)),
            ..FLAG
        },
        Flag {
            name: "warm",
            takes: Takes::Maybe("pattern"),
            repeats: true,
            help: "Start the guests of tasks from a template, made while there is no task, and \
                   not by a boot. <pattern> selects machines by name, where * is any text and ? \
                   any character. Without it: all machines.",
            set: |d, v| v.push(&mut d.options.warm, v.pattern()),
            ..FLAG
        },
        Flag {
            name: "warm-age",
            takes: Takes::Value("time"),
            default: Default::Is("24h"),
            help: "Age up to which a template is used. The clock of a guest that does not set it \
                   is behind by so much.",
            set: |d, v| put(&mut d.options.warm_age, v.time(1)),
            ..FLAG
        },
    ],
};
