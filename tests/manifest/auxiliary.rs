//! The auxiliary machines of tasks.

use bbot_agent::manifest::TaskManifest;

const TASK: &str = "\
: 1
name: libfoo
version: 1.2.3
machine: x86_64-linux_debian_12-gcc_13
auxiliary-machine-pgsql: x86_64-linux_debian_12-postgresql_16
auxiliary-machine: x86_64-linux_debian_12-redis_7
target: x86_64-linux-gnu
environment: default
worker-checksum: 2
";

fn task(text: &str) -> TaskManifest {
    TaskManifest::parse(text.as_bytes(), "f").unwrap()
}

#[test]
fn auxiliary_machines_that_no_controller_hands_out_are_refused() {
    let with = |lines: &str| task(&format!("{TASK}{lines}")).auxiliary_machines();
    assert_eq!(
        with("auxiliary-machine-b2_c-d: a-b\nauxiliary-machinery: x\n")
            .unwrap()
            .len(),
        3
    );
    let ten: String = (0..8)
        .map(|n| format!("auxiliary-machine-e{n}: a-{n}\n"))
        .collect();
    for (lines, why) in [
        (
            "auxiliary-machine-x: db\n",
            "'db' is no name of an auxiliary machine",
        ),
        (
            "auxiliary-machine-x:\n",
            "'' is no name of an auxiliary machine",
        ),
        (
            "auxiliary-machine-: a-b\n",
            "invalid name of an auxiliary environment",
        ),
        (
            "auxiliary-machine-1x: a-b\n",
            "invalid name of an auxiliary environment",
        ),
        (
            "auxiliary-machine-x$: a-b\n",
            "invalid name of an auxiliary environment",
        ),
        (
            "auxiliary-machine: a-b\n",
            "would have the same names, give each an environment of its own: \
             auxiliary-machine-<name>",
        ),
        (
            "auxiliary-machine-a-b: a-b\nauxiliary-machine-a_b: a-c\n",
            "of two of its auxiliary machines would have the same names",
        ),
        (
            "auxiliary-machine-x: x86_64-linux_debian_12-redis_7\n",
            "it needs auxiliary machine x86_64-linux_debian_12-redis_7 twice",
        ),
        (&ten, "it needs more than 9 auxiliary machines"),
    ] {
        let said = with(lines).unwrap_err();
        assert!(said.contains(why), "{lines}: {said}");
    }
}
