//! What the Rust half has to say, to Python's `logging`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::interpreter;
use crate::process::PerProcess;

/// Lines that wait for Python; more are counted and dropped, so that nothing waits for a handler.
const WAITING: usize = 1_000;

struct Line {
    level: u8,
    logger: String,
    text: String,
}

enum Message {
    Line(Line),
    /// Answered when all before it are told.
    Drain(SyncSender<()>),
}

struct Forward;

static QUEUE: PerProcess<SyncSender<Message>> = PerProcess::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Begins to forward in this process: where it has no subscriber of its own.
pub(crate) fn forward() {
    let (lines, waiting) = sync_channel(WAITING);
    let started = std::thread::Builder::new().name("gristmill-logs".into()).spawn(move || tell(&waiting));
    if started.is_ok() {
        QUEUE.set(lines);
        let subscriber = tracing_subscriber::registry().with(Forward.with_filter(LevelFilter::INFO));
        // After a fork there is one already: ours.
        let _ = tracing::subscriber::set_global_default(subscriber);
    }
}

/// Waits a little until what was said is told.
pub(crate) fn drain(py: Python<'_>) {
    let Some(lines) = QUEUE.get() else { return };
    py.detach(|| {
        let (done, told) = sync_channel(1);
        let until = Instant::now() + Duration::from_secs(1);
        let mut message = Message::Drain(done);
        while let Err(TrySendError::Full(back)) = lines.try_send(message) {
            if Instant::now() > until {
                return;
            }
            message = back;
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = told.recv_timeout(until.saturating_duration_since(Instant::now()));
    });
}

fn tell(waiting: &Receiver<Message>) {
    while let Ok(message) = waiting.recv() {
        match message {
            Message::Drain(done) => drop(done.send(())),
            Message::Line(line) => {
                let told = interpreter::enter(|py| -> PyResult<()> {
                    let logger = py.import("logging")?.call_method1("getLogger", (line.logger,))?;
                    logger.call_method1("log", (line.level, "%s", line.text))?;
                    Ok(())
                });
                if told.is_none() {
                    return;
                }
            }
        }
    }
}

impl<S: Subscriber> Layer<S> for Forward {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut text = Text::default();
        event.record(&mut text);
        let Text { mut message, fields } = text;
        message.push_str(&fields);
        let Some(lines) = QUEUE.get() else { return };
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let _ = write!(message, " ({dropped} lines before this one were dropped: nobody took them)");
        }
        // Python's numbers of levels.
        let level = match *metadata.level() {
            Level::ERROR => 40,
            Level::WARN => 30,
            Level::INFO => 20,
            _ => 10,
        };
        // `gristmill::consumer::poll` is `gristmill.consumer` to people.
        let mut parts = metadata.target().split("::");
        let crate_name = parts.next().unwrap_or("gristmill").replace('_', ".");
        let logger = match parts.next() {
            Some(module) => format!("{crate_name}.{module}"),
            None => crate_name,
        };
        if lines.try_send(Message::Line(Line { level, logger, text: message })).is_err() {
            DROPPED.fetch_add(dropped + 1, Ordering::Relaxed);
        }
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
