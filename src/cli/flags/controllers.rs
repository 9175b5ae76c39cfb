//! Controllers.

use super::{Complete, Default, FLAG, Flag, Group, Takes, put};

pub(super) const CONTROLLERS: Group = Group {
    title: "Controllers",
    flags: &[
        Flag {
            name: "agent-name",
            takes: Takes::Value("name"),
            default: Default::Means("the host name"),
            help: "Name of the agent in requests.",
            set: |d, v| put(&mut d.options.agent_name, v.word().map(Some)),
            ..FLAG
        },
        Flag {
            name: "poll-interval",
            takes: Takes::Value("time"),
            default: Default::Is("60"),
            help: "Pause between turns. After a task, the next turn starts at once.",
            set: |d, v| put(&mut d.options.poll_interval, v.time(1)),
            ..FLAG
        },
        Flag {
            name: "connect-timeout",
            takes: Takes::Value("time"),
            default: Default::Is("60"),
            help: "Timeout of a connection to a controller.",
            set: |d, v| put(&mut d.options.connect_timeout, v.time(1)),
            ..FLAG
        },
        Flag {
            name: "request-timeout",
            takes: Takes::Value("time"),
            default: Default::Is("300"),
            help: "Timeout of a whole exchange with a controller.",
            set: |d, v| put(&mut d.options.request_timeout, v.time(1)),
            ..FLAG
        },
        Flag {
            name: "request-retries",
            takes: Takes::Value("num"),
            default: Default::Is("0"),
            help: "Further attempts to connect to a controller, a second apart. The next turn \
                   tries again in any case.",
            set: |d, v| put(&mut d.options.request_retries, v.number(0, 100)),
            ..FLAG
        },
        Flag {
            name: "legacy-request",
            help: "Omit what controllers of 2017 do not know. These are toolchain-name and \
                   toolchain-version in requests, and newer status words in results.",
            set: |d, v| put(&mut d.options.legacy_request, v.switch()),
            ..FLAG
        },
        Flag {
            name: "ca-file",
            takes: Takes::Value("file"),
            complete: Complete::File,
            default: Default::Means("the host's bundle"),
            help: "Trusted certificate authorities (PEM). <file> replaces the default for https \
                   controllers.",
            set: |d, v| put(&mut d.options.ca_file, v.path("file").map(Some)),
            ..FLAG
        },
        Flag {
            name: "proxy",
            takes: Takes::Value("url"),
            default: Default::Means("that of http_proxy, https_proxy or all_proxy"),
            help: "HTTP proxy for controllers, or none. The hosts in no_proxy are reached without \
                   a proxy.",
            set: |d, v| put(&mut d.proxy, v.word().map(Some)),
            ..FLAG
        },
        Flag {
            name: "auth-key",
            takes: Takes::Value("file"),
            complete: Complete::File,
            default: Default::Means("the systemd credential auth-key, if any"),
            help: "RSA private key for authentication (PEM). It must not be encrypted, and must be \
                   readable by its owner only.",
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
            help: "Additional option for openssl. An engine, for instance.",
            set: |d, v| v.push(&mut d.options.openssl_options, v.word()),
            ..FLAG
        },
        Flag {
            name: "trust",
            takes: Takes::Value("fingerprint"),
            repeats: true,
            help: "Fingerprint of a trusted repository certificate. 32 pairs of hexadecimal digits \
                   separated by colons. These fingerprints replace those in tasks.",
            set: |d, v| v.push(&mut d.options.trust, v.fingerprint()),
            ..FLAG
        },
        Flag {
            name: "result-limit",
            takes: Takes::Value("size"),
            default: Default::Is("14M"),
            help: "Maximum size of a result. Longer logs lose their middle part.",
            set: |d, v| put(&mut d.options.result_limit, v.size(1, 64 << 10)),
            ..FLAG
        },
        Flag {
            name: "result-expiry",
            takes: Takes::Value("time"),
            default: Default::Is("3h"),
            help: "Time limit for the delivery of a result. It counts from the receipt of the \
                   task; a result that is not delivered by then is set aside.",
            set: |d, v| put(&mut d.options.result_expiry, v.time(1)),
            ..FLAG
        },
    ],
};
