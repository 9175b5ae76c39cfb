//! Trial runs: `--dump-*` and `--fake-*`.

use super::super::support::isolated;
use super::{Host, said};

#[test]
fn a_task_that_is_only_printed_stays_in_its_directory() {
    isolated(|| {
        let Some(host) = Host::new() else { return };
        host.drop_task("t");
        let spool = host.spool();
        for dump in ["--dump-task", "--dump-result"] {
            // A task that was begun three times and never ended is set aside.
            for _ in 0..4 {
                let output = host.run(&[dump, "--fake-build", "--once", &spool]);
                assert!(output.status.success(), "{dump}: {}", said(&output));
                assert!(!output.stdout.is_empty(), "{dump}: {}", said(&output));
                assert!(!said(&output).contains("begun before"), "{}", said(&output));
                assert!(host.path("spool/tasks/t.manifest").exists(), "{dump}");
            }
        }
    });
}
