//! `gristmill transform new`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::exit::Exit;

/// Names that make no crate or no function, in any of the languages.
const KEYWORDS: [&str; 107] = [
    "abstract",
    "and",
    "arguments",
    "as",
    "assert",
    "async",
    "await",
    "become",
    "box",
    "break",
    "case",
    "catch",
    "class",
    "const",
    "continue",
    "core",
    "crate",
    "debugger",
    "def",
    "default",
    "del",
    "delete",
    "do",
    "dyn",
    "elif",
    "else",
    "enum",
    "eval",
    "except",
    "export",
    "extends",
    "extern",
    "false",
    "final",
    "finally",
    "fn",
    "for",
    "from",
    "function",
    "gen",
    "global",
    "goto",
    "if",
    "impl",
    "implements",
    "import",
    "in",
    "instanceof",
    "interface",
    "is",
    "lambda",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "native",
    "new",
    "nonlocal",
    "not",
    "null",
    "or",
    "override",
    "package",
    "pass",
    "priv",
    "private",
    "proc_macro",
    "protected",
    "pub",
    "public",
    "raise",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "switch",
    "test",
    "this",
    "throw",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "undefined",
    "union",
    "unsafe",
    "unsized",
    "use",
    "var",
    "virtual",
    "void",
    "volatile",
    "where",
    "while",
    "with",
    "yield",
    "alloc",
    "json",
    "row",
    "transform",
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder to make; its name is the transform's, such as `mask-orders`.
    dir: PathBuf,
    /// The language.
    #[arg(long, value_enum, default_value_t = Lang::Rust)]
    lang: Lang,
    /// What the function is given.
    #[arg(long, value_enum, default_value_t = Kind::Rows)]
    kind: Kind,
    /// The folder of the SDK: `transform-sdk/rust`, `python` or `js` of a checkout of Gristmill. Without it the SDK comes from
    /// crates.io, PyPI or npm.
    #[arg(long, value_name = "FOLDER")]
    sdk: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Lang {
    /// A crate; the fastest and smallest component.
    Rust,
    /// transform.py.
    Python,
    /// transform.js.
    Js,
}

impl Lang {
    fn registry(self) -> &'static str {
        match self {
            Lang::Rust => "crates.io",
            Lang::Python => "PyPI",
            Lang::Js => "npm",
        }
    }

    /// The file of the SDK's folder that names it, and what it says there.
    fn sdk(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Lang::Rust => ("Cargo.toml", "name = \"gristmill-transform\"", "rust"),
            Lang::Python => ("pyproject.toml", "name = \"gristmill-transform\"", "python"),
            Lang::Js => ("package.json", "\"name\": \"gristmill-transform\"", "js"),
        }
    }
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
    if args.lang != Lang::Rust && args.kind == Kind::Records {
        return Err(Exit::mistake(
            "--kind records is there for Rust alone: leave it out, or take --lang rust",
        ));
    }
    let sdk = args.sdk.as_deref().map(|folder| sdk_folder(args.lang, folder)).transpose()?;
    let function = name.replace('-', "_");
    let fill = |text: &str| text.replace("{{name}}", name).replace("{{function}}", &function);
    let files = match args.lang {
        Lang::Rust => rust(args.kind, sdk.as_deref()),
        Lang::Python => python(sdk.as_deref()),
        Lang::Js => js(sdk.as_deref()),
    };
    for (path, text) in files {
        write(&dir.join(path), &fill(&text))?;
    }
    if args.sdk.is_none() {
        let (_, _, folder) = args.lang.sdk();
        eprintln!(
            "note: it takes gristmill-transform {VERSION} from {}; with a checkout of Gristmill, say --sdk transform-sdk/{folder}",
            args.lang.registry()
        );
    }
    let shown = dir.display();
    let native = match args.lang {
        Lang::Rust => format!("  cargo test --manifest-path {shown}/Cargo.toml   # natively\n"),
        Lang::Python => format!(
            "  cd {shown}\n  python3 -m venv .venv && .venv/bin/pip install -r requirements.txt\n  .venv/bin/python -m unittest   \
             # natively\n  cd -\n"
        ),
        Lang::Js => format!("  npm --prefix {shown} install\n  npm --prefix {shown} test   # natively\n"),
    };
    println!(
        "made {shown}\n\n{native}  gristmill transform test {shown}    # its fixtures, in the sandbox\n  gristmill transform build \
         {shown}   # the component\n"
    );
    Ok(())
}

/// The folder, if it is that of the SDK.
fn sdk_folder(lang: Lang, folder: &Path) -> Result<PathBuf, Exit> {
    let (file, text, place) = lang.sdk();
    let is_sdk = fs::read_to_string(folder.join(file)).is_ok_and(|found| found.contains(text));
    folder.canonicalize().ok().filter(|_| is_sdk).ok_or_else(|| {
        Exit::mistake(format!(
            "--sdk {}: gristmill-transform is not there; for this language it is `transform-sdk/{place}` of a checkout",
            folder.display()
        ))
    })
}

type Files = Vec<(&'static str, String)>;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What it does is the same in all languages.
const ROWS_FIXTURE: &str = include_str!("../../../transform-sdk/rust/template/rows/fixture.json");

fn rust(kind: Kind, sdk: Option<&Path>) -> Files {
    let (code, fixture) = match kind {
        Kind::Rows => (include_str!("../../../transform-sdk/rust/template/rows/lib.rs"), ROWS_FIXTURE),
        Kind::Records => (
            include_str!("../../../transform-sdk/rust/template/records/lib.rs"),
            include_str!("../../../transform-sdk/rust/template/records/fixture.json"),
        ),
    };
    let manifest = include_str!("../../../transform-sdk/rust/template/Cargo.toml.template");
    let linker = include_str!("../../../transform-sdk/rust/template/cargo_config.toml");
    let sdk = match sdk {
        None => format!("\"{VERSION}\""),
        Some(folder) => format!("{{ path = {:?} }}", folder.display().to_string()),
    };
    vec![
        ("Cargo.toml", manifest.replace("{{sdk}}", &sdk)),
        ("src/lib.rs", code.to_owned()),
        ("fixtures/example.json", fixture.to_owned()),
        (".cargo/config.toml", linker.to_owned()),
        (".gitignore", "/target\n/*.wasm\n".to_owned()),
    ]
}

fn python(sdk: Option<&Path>) -> Files {
    let sdk = match sdk {
        None => format!("gristmill-transform=={VERSION}"),
        Some(folder) => folder.display().to_string(),
    };
    vec![
        ("transform.py", include_str!("../../../transform-sdk/python/template/transform.py").to_owned()),
        (
            "test_transform.py",
            include_str!("../../../transform-sdk/python/template/test_transform.py").to_owned(),
        ),
        ("requirements.txt", format!("{sdk}\ncomponentize-py>=0.25,<0.26\n")),
        ("fixtures/example.json", ROWS_FIXTURE.to_owned()),
        (".gitignore", "__pycache__/\n/.venv/\n/*.wasm\n".to_owned()),
    ]
}

fn js(sdk: Option<&Path>) -> Files {
    let manifest = include_str!("../../../transform-sdk/js/template/package.json.template");
    let sdk = match sdk {
        None => format!("\"{VERSION}\""),
        Some(folder) => format!("{:?}", format!("file:{}", folder.display())),
    };
    vec![
        ("package.json", manifest.replace("{{sdk}}", &sdk)),
        ("transform.js", include_str!("../../../transform-sdk/js/template/transform.js").to_owned()),
        (
            "transform.test.js",
            include_str!("../../../transform-sdk/js/template/transform.test.js").to_owned(),
        ),
        ("fixtures/example.json", ROWS_FIXTURE.to_owned()),
        (".gitignore", "/node_modules/\n/*.wasm\n".to_owned()),
    ]
}

fn write(path: &Path, text: &str) -> Result<(), Exit> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
    made.map_err(|e| Exit::failed(format!("{}: {e}", path.display())))
}
