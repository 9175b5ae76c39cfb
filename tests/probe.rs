//! The guests that probe accelerators.

use std::fs;
use std::path::Path;
use std::process::Command;

use bbot_agent::platform::Architecture;

use crate::support::{TempDir, require_programs};

#[test]
fn the_images_are_those_of_the_sources() {
    for architecture in Architecture::ALL {
        let name = architecture.name();
        let tool = |tool: &str| match architecture == Architecture::HOST {
            true => tool.to_owned(),
            false => format!("{name}-linux-gnu-{tool}"),
        };
        let tools = ["as", "ld", "objcopy"].map(tool);
        let [assembler, linker, copy] = &tools;
        if !require_programs(&[assembler, linker, copy]) {
            continue;
        }
        let dir = TempDir::new();
        let source = format!("src/platform/probe-{name}.S");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        let run = |program: &str, words: &[&str]| {
            let mut command = Command::new(program);
            let status = command.current_dir(dir.path()).args(words).status();
            assert!(status.unwrap().success(), "{program}");
        };
        let address = match architecture {
            Architecture::X86_64 => "-Ttext=0x7c00",
            Architecture::Aarch64 => "-Ttext=0",
        };
        run(assembler, &["-o", "p.o", source.to_str().unwrap()]);
        run(linker, &[address, "-o", "p", "p.o"]);
        run(copy, &["-O", "binary", "-j", ".text", "p"]);
        let bytes = fs::read(dir.path().join("p")).unwrap();
        let image = architecture.probe().image();
        assert!(image.starts_with(&bytes), "{name}: {bytes:02x?}");
    }
}
