//! Controllers, machines and guests.

use super::{Complete, Default, FLAG, Flag, Group, Takes, put};
use crate::settings::{AccelChoice, RedirectKind};

pub(super) const CONTROLLERS: Group = Group {
    title: "Controllers",
    flags: &[
        Flag {
            name: "agent-name",
            takes: Takes::Value("name"),
            default: Default::Means("the host name"),
            help: "Our name in requests.",
            set: |d, v| put(&mut d.options.agent_name, v.word().map(Some)),
            ..FLAG
        },
        Flag {
            name: "poll-interval",
            takes: Takes::Value("time"),
            default: Default::Is("60"),
            help: "Pause between turns when there was nothing to do or something failed.",
            set: |d, v| put(&mut d.options.poll_interval, v.time(1)),
            ..FLAG
        },
        Flag {
            name: "connect-timeout",
            takes: Takes::Value("time"),
            default: Default::Is("60"),
            help: "Most time to reach a controller.",
            set: |d, v| put(&mut d.options.connect_timeout, v.time(1)),
            ..FLAG
        },
        Flag {
            name: "request-timeout",
            takes: Takes::Value("time"),
            default: Default::Is("300"),
            help: "Most time for a whole exchange with a controller.",
            set: |d, v| put(&mut d.options.request_timeout, v.time(1)),
            ..FLAG
        },
        Flag {
            name: "legacy-request",
            help: "Leave out what controllers of 2017 do not know: toolchain-name and \
                   toolchain-version in requests, the later status words in results.",
            set: |d, v| put(&mut d.options.legacy_request, v.switch()),
            ..FLAG
        },
        Flag {
            name: "ca-file",
            takes: Takes::Value("file"),
            complete: Complete::File,
            default: Default::Means("the host's bundle"),
            help: "Trust the certificate authorities in <file> (PEM), and no others, for https \
                   controllers.",
            set: |d, v| put(&mut d.options.ca_file, v.path("file").map(Some)),
            ..FLAG
        },
        Flag {
            name: "proxy",
            takes: Takes::Value("url"),
            help: "Reach controllers through this HTTP proxy. The environment is not asked.",
            set: |d, v| put(&mut d.options.proxy, v.word().map(Some)),
            ..FLAG
        },
        Flag {
            name: "auth-key",
            takes: Takes::Value("file"),
            complete: Complete::File,
            default: Default::Means("the systemd credential auth-key, if there is one"),
            help: "RSA private key (PEM, without password) to authenticate with.",
            set: |d, v| put(&mut d.options.auth_key, v.path("file").map(Some)),
            ..FLAG
        },
        Flag {
            name: "openssl",
            takes: Takes::Value("path"),
            complete: Complete::File,
            default: Default::Is("openssl"),
            help: "The openssl program. Needed with --auth-key only.",
            set: |d, v| put(&mut d.options.openssl, v.path("program")),
            ..FLAG
        },
        Flag {
            name: "openssl-option",
            takes: Takes::Value("option"),
            repeats: true,
            help: "Further option for every call of openssl, for instance for an engine.",
            set: |d, v| v.push(&mut d.options.openssl_options, v.word()),
            ..FLAG
        },
        Flag {
            name: "trust",
            takes: Takes::Value("fingerprint"),
            repeats: true,
            help: "Trust this repository certificate: 32 pairs of hexadecimal digits separated \
                   by colons. Replaces the fingerprints in tasks.",
            set: |d, v| v.push(&mut d.options.trust, v.fingerprint()),
            ..FLAG
        },
        Flag {
            name: "result-limit",
            takes: Takes::Value("size"),
            default: Default::Is("14M"),
            help: "Most bytes of a result; longer logs lose their middle.",
            set: |d, v| put(&mut d.options.result_limit, v.size(1, 64 << 10)),
            ..FLAG
        },
        Flag {
            name: "result-expiry",
            takes: Takes::Value("time"),
            default: Default::Is("3h"),
            help: "How long a result that could not be delivered is kept and tried again.",
            set: |d, v| put(&mut d.options.result_expiry, v.time(1)),
            ..FLAG
        },
    ],
};

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
            help: "The toolchain that machines are bootstrapped with.",
            set: |d, v| put(&mut d.options.toolchain_name, v.name()),
            ..FLAG
        },
        Flag {
            name: "toolchain-num",
            takes: Takes::Value("num"),
            default: Default::Is("1"),
            help: "Its number, 1 to 9.",
            set: |d, v| put(&mut d.options.toolchain_num, v.number(1, 9)),
            ..FLAG
        },
        Flag {
            name: "toolchain-ver",
            takes: Takes::Value("version"),
            default: Default::Is(env!("CARGO_PKG_VERSION")),
            help: "Its version, sent to controllers as toolchain-version.",
            set: |d, v| put(&mut d.options.toolchain_ver, v.word()),
            ..FLAG
        },
        Flag {
            name: "toolchain-id",
            takes: Takes::Value("id"),
            help: "Its id, for instance a checksum. Machines that were bootstrapped with \
                   another one are bootstrapped again; without an id they are not.",
            set: |d, v| put(&mut d.options.toolchain_id, v.text()),
            ..FLAG
        },
        Flag {
            name: "instance",
            takes: Takes::Value("num"),
            default: Default::Is("1"),
            help: "Which of several agents for one toolchain this is, 1 to 99.",
            set: |d, v| put(&mut d.options.instance, v.number(1, 99)),
            ..FLAG
        },
        Flag {
            name: "bootstrap-version",
            takes: Takes::Value("package=version"),
            repeats: true,
            help: "What a bootstrapped machine must report. Machines that report less are \
                   bootstrapped again, those that report more are left alone.",
            set: |d, v| v.push(&mut d.options.bootstrap_versions, v.package_version()),
            ..FLAG
        },
        Flag {
            name: "min-free",
            takes: Takes::Value("space"),
            default: Default::Is("5%,10G"),
            help: "Ask for no work with less free space than this: a share, a size, or the \
                   smaller of both.",
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
            help: "The way in which requests of guests to 196.254.111.222 port 69 reach the agent: \
                   rules of nf_tables (nft, Linux 5.12 or newer), or none if the bridge has that \
                   address (then one agent per bridge). auto: the first that works.",
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
            default: Default::Is("qemu-system-x86_64"),
            help: "The QEMU program.",
            set: |d, v| put(&mut d.options.qemu, v.path("program")),
            ..FLAG
        },
        Flag {
            name: "accel",
            takes: Takes::Value("how"),
            complete: Complete::Words(&["kvm", "tcg", "auto"]),
            default: Default::Is("kvm"),
            help: "What executes the guest: the processor (kvm), emulation (tcg), or the first \
                   of them that works (auto).",
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
            help: "Processors of a guest.",
            set: |d, v| put(&mut d.options.cpu, v.number(1, 1024)),
            ..FLAG
        },
        Flag {
            name: "ram",
            aliases: &["build-ram"],
            takes: Takes::Value("kB"),
            default: Default::Is("4194304"),
            help: "Memory of a guest, in kB, or with a unit as in 4G.",
            set: |d, v| {
                put(
                    &mut d.options.ram,
                    v.size(1024, 1024).map(|bytes| bytes / 1024),
                )
            },
            ..FLAG
        },
        Flag {
            name: "vm-user",
            takes: Takes::Value("user"),
            default: Default::Means("ours"),
            help: "User that QEMU runs as, by name or number.",
            set: |d, v| put(&mut d.options.vm_user, v.word().map(Some)),
            ..FLAG
        },
        Flag {
            name: "bootstrap-startup",
            takes: Takes::Value("time"),
            default: Default::Is("300"),
            help: "Bootstrapping: from the start of the guest to its first request.",
            set: |d, v| put(&mut d.options.bootstrap_startup, v.time(1)),
            ..FLAG
        },
        Flag {
            name: "bootstrap-timeout",
            takes: Takes::Value("time"),
            default: Default::Is("3600"),
            help: "Bootstrapping: from the first request to the manifest.",
            set: |d, v| put(&mut d.options.bootstrap_timeout, v.time(1)),
            ..FLAG
        },
        Flag {
            name: "bootstrap-shutdown",
            takes: Takes::Value("time"),
            default: Default::Is("300"),
            help: "Bootstrapping: from the manifest to power off.",
            set: |d, v| put(&mut d.options.bootstrap_shutdown, v.time(1)),
            ..FLAG
        },
        Flag {
            name: "bootstrap-retries",
            takes: Takes::Value("num"),
            default: Default::Is("2"),
            help: "Bootstrapping: how often a guest that made no request is started again.",
            set: |d, v| put(&mut d.options.bootstrap_retries, v.number(0, 100)),
            ..FLAG
        },
        Flag {
            name: "build-startup",
            takes: Takes::Value("time"),
            default: Default::Is("240"),
            help: "Building: from the start of the guest to its first request.",
            set: |d, v| put(&mut d.options.build_startup, v.time(1)),
            ..FLAG
        },
        Flag {
            name: "build-timeout",
            takes: Takes::Value("time"),
            default: Default::Is("5400"),
            help: "Building: from the first request to the result.",
            set: |d, v| put(&mut d.options.build_timeout, v.time(1)),
            ..FLAG
        },
        Flag {
            name: "build-retries",
            takes: Takes::Value("num"),
            default: Default::Is("2"),
            help: "Building: how often a guest that made no request is started again.",
            set: |d, v| put(&mut d.options.build_retries, v.number(0, 100)),
            ..FLAG
        },
        Flag {
            name: "hold",
            takes: Takes::Value("time"),
            complete: Complete::Words(&["0", "600", "forever"]),
            default: Default::Is("600"),
            help: "How long a guest that went wrong is kept, suspended, for inspection; 0: not \
                   at all; forever: until somebody ends it.",
            set: |d, v| put(&mut d.options.hold, v.hold()),
            ..FLAG
        },
    ],
};
