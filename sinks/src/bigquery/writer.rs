//! Rows into one PENDING stream: appended at offsets, acknowledged, and nothing more of them to be seen.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
    AppendRowsRequest, AppendRowsResponse, ArrowRecordBatch, ArrowSchema, FinalizeWriteStreamRequest,
    append_rows_request::{ArrowData, Rows},
    append_rows_response::Response,
};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use super::client::{Client, Patience};
use super::rows::{Message, messages};
use super::status;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{BoxFuture, Generation, Staged, StagedWrite};

/// Bytes that may wait for their acknowledgement.
const IN_FLIGHT: usize = 16 << 20;
/// Requests that may.
const MAX_REQUESTS: usize = 64;
/// A reply that takes longer does not come.
const REPLY: Duration = Duration::from_secs(60);

pub(super) struct StreamWriter {
    client: Client,
    /// `projects/../datasets/../tables/../streams/..`
    stream: String,
    schema: Option<Bytes>,
    /// Sent or to be sent, not acknowledged, in order.
    waiting: VecDeque<Waiting>,
    connection: Option<Connection>,
    next_offset: i64,
    bytes: u64,
    crc32c: u32,
    is_torn: bool,
}

struct Waiting {
    offset: i64,
    message: Message,
}

struct Connection {
    requests: mpsc::Sender<AppendRowsRequest>,
    replies: Streaming<AppendRowsResponse>,
}

/// No rows.
impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamWriter")
            .field("stream", &self.stream)
            .field("next_offset", &self.next_offset)
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl StreamWriter {
    pub(super) fn new(client: Client, stream: String) -> Self {
        StreamWriter {
            client,
            stream,
            schema: None,
            waiting: VecDeque::new(),
            connection: None,
            next_offset: 0,
            bytes: 0,
            crc32c: 0,
            is_torn: false,
        }
    }

    fn waiting_bytes(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.message.bytes.len()).sum()
    }

    async fn add(&mut self, frames: Bytes) -> Result<()> {
        self.bytes += frames.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &frames);
        for message in messages(frames)? {
            if message.rows == 0 {
                self.schema = Some(message.bytes);
                continue;
            }
            let rows = i64::from(message.rows);
            self.waiting.push_back(Waiting { offset: self.next_offset, message });
            self.next_offset += rows;
            self.send_last().await;
            while self.waiting_bytes() > IN_FLIGHT || self.waiting.len() >= MAX_REQUESTS {
                self.acknowledge().await?;
            }
        }
        Ok(())
    }

    /// A connection that is gone is made anew by whoever waits for a reply.
    async fn send_last(&mut self) {
        let (Some(connection), Some(last)) = (&self.connection, self.waiting.back()) else { return };
        let request = self.request(last, false);
        if connection.requests.send(request).await.is_err() {
            self.connection = None;
        }
    }

    /// The boundaries of a request never change: an offset that is there already is then ours, and whole.
    fn request(&self, waiting: &Waiting, is_first: bool) -> AppendRowsRequest {
        let schema = self.schema.clone().filter(|_| is_first);
        let mut rows =
            ArrowRecordBatch { serialized_record_batch: waiting.message.bytes.clone(), ..Default::default() };
        #[expect(deprecated, reason = "a server may still look at it")]
        {
            rows.row_count = i64::from(waiting.message.rows);
        }
        AppendRowsRequest {
            write_stream: if is_first { self.stream.clone() } else { String::new() },
            offset: Some(waiting.offset),
            trace_id: if is_first {
                concat!("gristmill:", env!("CARGO_PKG_VERSION")).to_owned()
            } else {
                String::new()
            },
            rows: Some(Rows::ArrowRows(ArrowData {
                writer_schema: schema.map(|serialized_schema| ArrowSchema { serialized_schema }),
                rows: Some(rows),
            })),
            ..Default::default()
        }
    }

    /// Everything that waits goes out again, in order.
    async fn connect(&self) -> Result<Connection, Status> {
        let (requests, receiver) = mpsc::channel(MAX_REQUESTS + 1);
        for (i, waiting) in self.waiting.iter().enumerate() {
            // There is room for all that may wait.
            let _ = requests.try_send(self.request(waiting, i == 0));
        }
        let replies = self.client.append_rows(receiver, &self.stream).await?;
        Ok(Connection { requests, replies })
    }

    /// Waits for one more request to be acknowledged.
    async fn acknowledge(&mut self) -> Result<()> {
        let mut patience = Patience::new();
        loop {
            match self.reply().await {
                Ok(()) => return Ok(()),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(status)) => {
                    self.connection = None;
                    tracing::warn!(stream = self.stream, %status, "appending to BigQuery again");
                    patience.wait(|| status::error("rows were not appended", &status)).await?;
                }
            }
        }
    }

    async fn reply(&mut self) -> Result<(), Trouble> {
        if self.connection.is_none() {
            let connection =
                self.connect().await.map_err(|status| Trouble::of("rows were not appended", status))?;
            self.connection = Some(connection);
        }
        let (Some(connection), Some(first)) = (&mut self.connection, self.waiting.front()) else {
            return Ok(());
        };
        let reply = match tokio::time::timeout(REPLY, connection.replies.message()).await {
            Err(_) => return Err(Trouble::Passing(Status::deadline_exceeded("no reply to an append"))),
            Ok(Err(status)) => return Err(Trouble::of("rows were not appended", status)),
            Ok(Ok(None)) => return Err(Trouble::Passing(Status::unavailable("the connection was closed"))),
            Ok(Ok(Some(reply))) => reply,
        };
        if let Some(refused) = reply.row_errors.first() {
            let text = format!(
                "BigQuery refuses {} of {} rows from row {} of stream {} on, and took none of them; the first is row {}: {}",
                reply.row_errors.len(),
                first.message.rows,
                first.offset,
                self.stream,
                refused.index,
                refused.message.chars().take(500).collect::<String>()
            );
            return Err(Trouble::Final(Error::new(ErrorKind::Encode, text)));
        }
        match reply.response {
            Some(Response::AppendResult(result))
                if result.offset.is_none_or(|offset| offset == first.offset) => {}
            Some(Response::AppendResult(result)) => {
                let text = format!(
                    "BigQuery acknowledged offset {:?} of stream {}, and {} was next",
                    result.offset, self.stream, first.offset
                );
                return Err(Trouble::Final(Error::new(ErrorKind::Corrupt, text)));
            }
            // A reply was lost: it is in the stream.
            Some(Response::Error(e)) if Code::from(e.code) == Code::AlreadyExists => {}
            Some(Response::Error(e)) => {
                return Err(Trouble::of(
                    "rows were not appended",
                    Status::new(Code::from(e.code), e.message),
                ));
            }
            None => return Err(Trouble::Passing(Status::unavailable("an empty reply"))),
        }
        self.waiting.pop_front();
        Ok(())
    }

    async fn end(&mut self) -> Result<Staged> {
        while !self.waiting.is_empty() {
            self.acknowledge().await?;
        }
        self.connection = None;
        let request = FinalizeWriteStreamRequest { name: self.stream.clone() };
        let rows = self.client.finalize(request).await?;
        if rows != self.next_offset {
            let text = format!(
                "stream {} of BigQuery has {rows} rows, {} were appended; nothing of it is visible",
                self.stream, self.next_offset
            );
            return Err(Error::new(ErrorKind::Corrupt, text));
        }
        Ok(Staged {
            name: self.stream.clone(),
            generation: Generation(0),
            bytes: self.bytes,
            crc32c: self.crc32c,
        })
    }
}

enum Trouble {
    Passing(Status),
    Final(Error),
}

impl Trouble {
    fn of(what: &str, status: Status) -> Self {
        match status::is_passing(status.code()) {
            true => Trouble::Passing(status),
            false => Trouble::Final(status::error(what, &status)),
        }
    }
}

impl StagedWrite for StreamWriter {
    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            if std::mem::replace(&mut self.is_torn, true) {
                let text = format!("stream {} of BigQuery is incomplete after a failure", self.stream);
                return Err(Error::new(ErrorKind::Torn, text));
            }
            self.add(bytes).await?;
            self.is_torn = false;
            Ok(())
        })
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, Result<Staged>> {
        Box::pin(async move {
            if self.is_torn {
                let text = format!("stream {} of BigQuery is incomplete after a failure", self.stream);
                return Err(Error::new(ErrorKind::Torn, text));
            }
            self.end().await
        })
    }

    fn buffered(&self) -> usize {
        self.waiting_bytes()
    }
}
