//! `gristmill transform new`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::exit::Exit;

/// Names that make no crate or no function.
const KEYWORDS: [&str; 12] =
    ["as", "async", "crate", "dyn", "fn", "impl", "match", "mod", "self", "test", "type", "use"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder to make; its name is the transform's, such as `mask-orders`.
    dir: PathBuf,
    /// What the function is given.
    #[arg(long, value_enum, default_value_t = Kind::Rows)]
    kind: Kind,
    /// The folder of the crate gristmill-transform, such as `transform-sdk/rust` of a checkout of Gristmill. Without it
    /// the crate comes from crates.io.
    #[arg(long, value_name = "FOLDER")]
    sdk: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// A typed row of the columns that values were decoded to.
    Rows,
    /// A record as it is in Kafka: key, value and headers as bytes.
    Records,
}

pub(crate) fn run(args: &Args) -> Result<(), Exit> {
    let dir = &args.dir;
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_name = name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c))
        && !KEYWORDS.contains(&name);
    if !is_name {
        return Err(Exit::mistake(format!(
            "`{name}` cannot be a transform's name: a lower-case letter, then letters, digits, `-` and `_`, such as \
             `mask-orders`"
        )));
    }
    if dir.exists() {
        return Err(Exit::mistake(format!("{} is there already: name a folder that is not", dir.display())));
    }
    let sdk = match &args.sdk {
        None => format!("\"{}\"", env!("CARGO_PKG_VERSION")),
        Some(folder) => {
            let manifest = folder.join("Cargo.toml");
            let is_sdk = fs::read_to_string(&manifest)
                .is_ok_and(|text| text.contains("name = \"gristmill-transform\""));
            let found = folder.canonicalize().ok().filter(|_| is_sdk);
            let Some(found) = found else {
                let folder = folder.display();
                return Err(Exit::mistake(format!(
                    "--sdk {folder}: the crate gristmill-transform is not there; it is `transform-sdk/rust` of a checkout"
                )));
            };
            format!("{{ path = {:?} }}", found.display().to_string())
        }
    };
    let (code, fixture) = match args.kind {
        Kind::Rows => (
            include_str!("../../../transform-sdk/rust/template/rows/lib.rs"),
            include_str!("../../../transform-sdk/rust/template/rows/fixture.json"),
        ),
        Kind::Records => (
            include_str!("../../../transform-sdk/rust/template/records/lib.rs"),
            include_str!("../../../transform-sdk/rust/template/records/fixture.json"),
        ),
    };
    let manifest = include_str!("../../../transform-sdk/rust/template/Cargo.toml.template");
    let linker = include_str!("../../../transform-sdk/rust/template/cargo_config.toml");
    let function = name.replace('-', "_");
    let fill = |text: &str| {
        text.replace("{{name}}", name).replace("{{function}}", &function).replace("{{sdk}}", &sdk)
    };
    for (path, text) in [
        ("Cargo.toml", fill(manifest)),
        ("src/lib.rs", fill(code)),
        ("fixtures/example.json", fixture.to_owned()),
        (".cargo/config.toml", linker.to_owned()),
        (".gitignore", "/target\n/*.wasm\n".to_owned()),
    ] {
        write(&dir.join(path), &text)?;
    }
    let shown = dir.display();
    println!(
        "made {shown}\n\n  cargo test --manifest-path {shown}/Cargo.toml   # natively\n  gristmill transform test {shown}          # \
         its fixtures, in the sandbox\n  gristmill transform build {shown}         # the component\n"
    );
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Exit> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
    made.map_err(|e| Exit::failed(format!("{}: {e}", path.display())))
}
