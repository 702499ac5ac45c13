use std::fmt;

/// How a command ends when it does not end well.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Exit {
    /// Failed while running.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Exit { code: 1, message: format!("error: {message}") }
    }

    /// A mistake in the command line or in a file.
    pub(crate) fn mistake(message: impl fmt::Display) -> Self {
        Exit { code: 2, message: message.to_string() }
    }

    /// A check found a difference.
    pub(crate) fn difference(message: impl fmt::Display) -> Self {
        Exit { code: 3, message: message.to_string() }
    }

    /// The open checkpoint was dropped.
    pub(crate) fn dropped(message: impl fmt::Display) -> Self {
        Exit { code: 4, message: message.to_string() }
    }
}

impl From<gristmill_pipeline::Error> for Exit {
    fn from(error: gristmill_pipeline::Error) -> Self {
        match error.kind() {
            gristmill_pipeline::ErrorKind::Config => Exit::mistake(error),
            _ => Exit::failed(error),
        }
    }
}

impl From<gristmill_pipeline::Problems> for Exit {
    fn from(problems: gristmill_pipeline::Problems) -> Self {
        let count = problems.iter().count();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        Exit::mistake(format!("{problems}\n{count} {noun}"))
    }
}
