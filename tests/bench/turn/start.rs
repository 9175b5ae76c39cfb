//! From the start to the first useful line; the size of the program.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::rows::{Row, median};
use super::scene::{Scene, agent, cost, line, size};
use super::support::program;

const ROUNDS: usize = 51;

fn times(mut body: impl FnMut() -> Duration) -> Duration {
    median((0..ROUNDS).map(|_| body()).collect())
}

pub fn rows() {
    let bytes = size(&agent());
    Row::new("release binary, static, with TLS", "MB", bytes as f64 / 1e6)
        .under(3.0)
        .done();

    let version = times(|| cost(Command::new(agent()).arg("--version").stdout(Stdio::null())).0);
    // Of the same program family, where there is no qemu-img.
    let other = match program("qemu-img") {
        Some(_) => "qemu-img --version",
        None => "qemu-system-x86_64 --version",
    };
    let yardstick = times(|| line(other).0);
    let nothing = times(|| line("true").0);
    Row::ms("start: --version", version)
        .beside_ms(other, yardstick)
        .under(3.0)
        .done();
    Row::ms(
        "start: --version, less what any process costs",
        version.saturating_sub(nothing),
    )
    .beside_ms("true", nothing)
    .done();
    let Some(scene) = Scene::new(1) else { return };
    let dump = times(|| cost(&mut scene.agent(&["--dump-machines"])).0);
    Row::ms("start: --dump-machines, one machine", dump)
        .beside_ms(other, yardstick)
        .under(3.0)
        .done();
}
