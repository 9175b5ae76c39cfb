//! Any bytes as an option file: read or refused with a place, and what is read is
//! within the bounds that the rest of the agent relies on.

#![no_main]

use std::ffi::OsString;
use std::time::Duration;

use bbot_agent::cli::{self, Invocation};
use bbot_agent::error::Class;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let path = std::env::temp_dir().join(format!("bbot-agent-options-{}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    let args = ["--check", "--options-file"].map(OsString::from);
    match cli::parse(args.into_iter().chain([path.clone().into()]), &|_| None) {
        Ok(Invocation::Check(options, _)) => {
            for time in [
                options.poll_interval,
                options.connect_timeout,
                options.request_timeout,
                options.build_timeout,
            ] {
                assert!(time >= Duration::from_secs(1));
                assert!(time <= Duration::from_secs(366 * 86400));
            }
            assert!(options.ram >= 1024 && options.cpu >= 1 && options.instance >= 1);
            assert!(options.bridge.len() <= 15 && options.verbose <= 6);
            assert!(
                !options.toolchain_name.contains(['/', '.'])
                    || !options.toolchain_name.starts_with('.')
            );
            assert!(
                options
                    .controllers
                    .iter()
                    .all(|controller| !controller.is_empty())
            );
        }
        Err(error) => {
            assert_eq!(error.class(), Class::Usage);
            assert!(error.to_string().starts_with(&format!("{}:", path.display())));
        }
        Ok(other) => panic!("{other:?}"),
    }
});
