//! The command `gristmill`.

fn main() -> std::process::ExitCode {
    gristmill_cli::main(std::env::args_os()).into()
}
