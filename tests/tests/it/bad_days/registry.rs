//! A Schema Registry with moods.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gristmill_tests::orders::AVRO_SCHEMA;

/// How it answers.
#[derive(Clone, Debug)]
pub(super) enum Mood {
    Well,
    /// This status and Confluent's code and message.
    Status(u16, i64, &'static str),
    /// Well, to those with that header `Authorization`.
    Wants(&'static str),
    /// Well, but late.
    Slow(Duration),
    /// Not at all, though it takes connections.
    Silent,
}

/// Knows one schema, that of orders, as id 1 and the latest version of every subject. Its threads end with the test.
pub(super) struct MoodyRegistry {
    address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
}

impl MoodyRegistry {
    pub(super) fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let mood = Arc::new(Mutex::new(mood));
        let of_thread = mood.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mood = of_thread.lock().unwrap_or_else(PoisonError::into_inner).clone();
                std::thread::spawn(move || answer(stream, &mood));
            }
        });
        MoodyRegistry { address, mood }
    }

    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }
}

fn answer(mut stream: TcpStream, mood: &Mood) {
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let authorization = headers.iter().find_map(|h| {
        let (name, value) = h.split_once(": ")?;
        name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
    });
    let refusal = match mood {
        Mood::Well => None,
        Mood::Status(status, code, message) => Some((*status, *code, *message)),
        Mood::Wants(header) if authorization.as_deref() == Some(*header) => None,
        Mood::Wants(_) => Some((401, 40101, "Unauthorized")),
        Mood::Slow(by) => {
            std::thread::sleep(*by);
            None
        }
        Mood::Silent => {
            std::thread::sleep(Duration::from_secs(15));
            return;
        }
    };
    let (status, body) = match refusal {
        Some((status, code, message)) => {
            (status, serde_json::json!({"error_code": code, "message": message}))
        }
        None if request.contains("/schemas/ids/") => (200, serde_json::json!({"schema": AVRO_SCHEMA})),
        None => {
            let subject = request.split('/').nth(2).unwrap_or_default();
            (200, serde_json::json!({"subject": subject, "version": 1, "id": 1, "schema": AVRO_SCHEMA}))
        }
    };
    let body = body.to_string();
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}");
    let _ = write!(stream, "{head}\r\nConnection: close\r\n\r\n{body}");
}
