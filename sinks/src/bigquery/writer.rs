//! Rows into one stream of BigQuery: a PENDING one, where they are appended at offsets and nothing of them is to be seen, or a
//! table's default one, where they are seen at once and a request that is repeated is there twice.
//!
//! Of a request with rows that BigQuery refuses it takes none. Without those rows the request goes out again; in a PENDING
//! stream those behind it go out again too, at lower offsets. That is done only where no earlier try of them can still be on its
//! way: it would be taken at its old offset.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
    AppendRowsRequest, AppendRowsResponse, ArrowRecordBatch, ArrowSchema, FinalizeWriteStreamRequest,
    ProtoRows, ProtoSchema, RowError,
    append_rows_request::{ArrowData, ProtoData, Rows},
    append_rows_response::Response,
};
use prost::Message as _;
use prost_types::DescriptorProto;
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use super::client::{Client, Patience};
use super::rows::{Form, Message, messages, without};
use super::status;
use super::tables::LAG;
use crate::error::{Error, ErrorKind, Result};
use crate::left_out::LeftOut;
use crate::store::{Answered, BoxFuture, Generation, RefusedRow, Staged, StagedWrite};

/// Bytes that may wait for their acknowledgement.
const IN_FLIGHT: usize = 16 << 20;
/// Requests that may.
const MAX_REQUESTS: usize = 64;
/// A reply that takes longer does not come.
const REPLY: Duration = Duration::from_secs(60);
/// Characters of why a row is refused.
const MAX_WHY: usize = 1_000;

pub(super) struct StreamWriter {
    client: Client,
    form: Form,
    /// Of the rows as they come; those that are appended come without.
    left_out: Option<LeftOut>,
    is_default: bool,
    /// `projects/../datasets/../tables/../streams/..`
    stream: String,
    schema: Option<Bytes>,
    /// Sent or to be sent, not acknowledged, in order.
    waiting: VecDeque<Waiting>,
    connection: Option<Connection>,
    next_offset: i64,
    /// What was appended, and what of it has been answered.
    rows: u64,
    refused: Vec<RefusedRow>,
    /// What waits below this offset may be on its way on a connection that broke.
    astray: i64,
    bytes: u64,
    crc32c: u32,
    is_torn: bool,
}

struct Waiting {
    offset: i64,
    /// The number of each of its rows among all that were appended: of the first, and of those that were refused since.
    first_row: u64,
    gaps: Vec<u64>,
    message: Message,
}

struct Connection {
    requests: mpsc::Sender<AppendRowsRequest>,
    replies: Streaming<AppendRowsResponse>,
    _open: Arc<()>,
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
    pub(super) fn new(client: Client, stream: String, form: Form, left_out: Option<LeftOut>) -> Self {
        StreamWriter {
            client,
            form,
            left_out,
            is_default: is_default(&stream),
            stream,
            schema: None,
            waiting: VecDeque::new(),
            connection: None,
            next_offset: 0,
            rows: 0,
            refused: Vec::new(),
            astray: 0,
            bytes: 0,
            crc32c: 0,
            is_torn: false,
        }
    }

    fn check_whole(&self) -> Result<()> {
        match self.is_torn {
            false => Ok(()),
            true => {
                let text = format!("stream {} of BigQuery is incomplete after a failure", self.stream);
                Err(Error::new(ErrorKind::Torn, text))
            }
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
                // Whoever wrote the schema wrote the rows.
                if self.form == Form::Changes && DescriptorProto::decode(message.bytes.clone()).is_err() {
                    let text = "a store that takes changes takes the rows of the format for changes alone";
                    return Err(Error::new(ErrorKind::Usage, text));
                }
                self.schema = Some(message.bytes);
                continue;
            }
            let rows = i64::from(message.rows);
            self.waiting.push_back(Waiting {
                offset: self.next_offset,
                first_row: self.rows,
                gaps: Vec::new(),
                message,
            });
            self.next_offset += rows;
            self.rows += rows as u64;
            match self.connection {
                Some(_) => self.send_last().await,
                // Whoever waits for the reply tries again, and says so.
                None => _ = self.connect().await,
            }
            self.take_replies().await?;
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
            self.lose_connection();
        }
    }

    /// The boundaries of a request never change: an offset that is there already is then ours, and whole.
    fn request(&self, waiting: &Waiting, is_first: bool) -> AppendRowsRequest {
        let schema = self.schema.clone().filter(|_| is_first);
        let bytes = waiting.message.bytes.clone();
        let rows = match self.form {
            Form::Arrow => {
                let mut rows = ArrowRecordBatch { serialized_record_batch: bytes, ..Default::default() };
                #[expect(deprecated, reason = "a server may still look at it")]
                {
                    rows.row_count = i64::from(waiting.message.rows);
                }
                Rows::ArrowRows(ArrowData {
                    writer_schema: schema.map(|serialized_schema| ArrowSchema { serialized_schema }),
                    rows: Some(rows),
                })
            }
            Form::Changes => Rows::ProtoRows(ProtoData {
                writer_schema: schema
                    .map(|bytes| ProtoSchema { proto_descriptor: DescriptorProto::decode(bytes).ok() }),
                rows: ProtoRows::decode(bytes).ok(),
            }),
        };
        AppendRowsRequest {
            write_stream: if is_first { self.stream.clone() } else { String::new() },
            offset: (!self.is_default).then_some(waiting.offset),
            trace_id: if is_first {
                concat!("gristmill:", env!("CARGO_PKG_VERSION")).to_owned()
            } else {
                String::new()
            },
            rows: Some(rows),
            ..Default::default()
        }
    }

    /// Everything that waits goes out again, in order. If it fails it may have gone out, too.
    async fn connect(&mut self) -> Result<(), Status> {
        let (requests, receiver) = mpsc::channel(MAX_REQUESTS + 1);
        for (i, waiting) in self.waiting.iter().enumerate() {
            // There is room for all that may wait.
            let _ = requests.try_send(self.request(waiting, i == 0));
        }
        let connected = tokio::time::timeout(REPLY, self.client.append_rows(receiver, &self.stream)).await;
        match connected.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer to a new connection"))) {
            Ok((replies, open)) => {
                self.connection = Some(Connection { requests, replies, _open: open });
                Ok(())
            }
            Err(status) => {
                self.lose_connection();
                Err(status)
            }
        }
    }

    /// What waits may be on its way, and taken later.
    fn lose_connection(&mut self) {
        self.connection = None;
        self.astray = self.next_offset;
    }

    /// Takes the replies that are there. What fails in passing is left to whoever waits for a reply.
    async fn take_replies(&mut self) -> Result<()> {
        while self.connection.is_some() && !self.waiting.is_empty() {
            match self.reply(Duration::ZERO).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(_) | Trouble::Lagging(_)) => self.lose_connection(),
            }
        }
        Ok(())
    }

    /// Waits for one more request to be acknowledged.
    async fn acknowledge(&mut self) -> Result<()> {
        let (mut patience, mut lag) = (Patience::new(), None);
        loop {
            match self.reply(REPLY).await {
                Ok(_) => return Ok(()),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Lagging(status)) => {
                    self.lose_connection();
                    if lag.is_none() {
                        tracing::info!(stream = self.stream, %status, "waiting for BigQuery to know the table's columns");
                    }
                    let lag = lag.get_or_insert_with(|| Patience::of(LAG));
                    lag.wait(|| status::error("rows were not appended", &status)).await?;
                }
                Err(Trouble::Passing(status)) => {
                    self.lose_connection();
                    tracing::warn!(stream = self.stream, %status, "appending to BigQuery again");
                    patience.wait(|| status::error("rows were not appended", &status)).await?;
                }
            }
        }
    }

    /// Takes one reply, if there is one in that time; without any time to wait, none is no trouble.
    async fn reply(&mut self, wait: Duration) -> Result<bool, Trouble> {
        if self.connection.is_none() {
            self.connect().await.map_err(Trouble::of_connection)?;
        }
        let (Some(connection), Some(first)) = (&mut self.connection, self.waiting.front()) else {
            return Ok(false);
        };
        let reply = match tokio::time::timeout(wait, connection.replies.message()).await {
            Err(_) if wait.is_zero() => return Ok(false),
            Err(_) => return Err(Trouble::Passing(Status::deadline_exceeded("no reply to an append"))),
            Ok(Err(status)) => return Err(Trouble::of_connection(status)),
            Ok(Ok(None)) => return Err(Trouble::Passing(Status::unavailable("the connection was closed"))),
            Ok(Ok(Some(reply))) => reply,
        };
        if !reply.row_errors.is_empty() {
            return self.go_on_without(reply.row_errors).await.map(|()| true);
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
            Some(Response::Error(e)) if status::is_extra_fields(&e) => {
                return Err(Trouble::Lagging(Status::new(Code::from(e.code), e.message)));
            }
            // An earlier request was not taken, and this one's place is not there yet: nothing of the stream is visible.
            Some(Response::Error(e)) if Code::from(e.code) == Code::OutOfRange => {
                let text = format!(
                    "stream {} of BigQuery has a gap: {}; its entry is begun again",
                    self.stream, e.message
                );
                return Err(Trouble::Final(Error::new(ErrorKind::Unavailable, text)));
            }
            Some(Response::Error(e)) => {
                return Err(Trouble::of(
                    "rows were not appended",
                    Status::new(Code::from(e.code), e.message),
                ));
            }
            None => return Err(Trouble::Passing(Status::unavailable("an empty reply"))),
        }
        self.waiting.pop_front();
        Ok(true)
    }

    /// Takes the rows that are refused out of the first request that waits.
    async fn go_on_without(&mut self, errors: Vec<RowError>) -> Result<(), Trouble> {
        let unsure = |why: &str| {
            let text = format!(
                "BigQuery refuses rows of stream {}, and {why}: its entry is begun again with another stream",
                self.stream
            );
            Trouble::Final(Error::new(ErrorKind::Unavailable, text))
        };
        if !self.is_default && self.waiting.get(1).is_some_and(|next| next.offset < self.astray) {
            return Err(unsure("what is behind them was on its way on a connection that broke"));
        }
        let Some(connection) = &mut self.connection else { return Ok(()) };
        if !self.is_default {
            // All of them are out at offsets that will be others': each has to be refused first, or the server has to be done.
            for _ in 1..self.waiting.len() {
                match tokio::time::timeout(REPLY, connection.replies.message()).await {
                    Ok(Ok(Some(AppendRowsResponse { response: Some(Response::Error(_)), .. }))) => {}
                    Ok(Ok(None)) => break,
                    Ok(Err(status)) if !status::is_passing(status.code()) => break,
                    _ => return Err(unsure("what became of those behind them is not known")),
                }
            }
            self.connection = None;
        }
        let (Some(first), Some(schema)) = (self.waiting.front_mut(), &self.schema) else { return Ok(()) };
        let mut refused: BTreeMap<u32, String> = BTreeMap::new();
        for error in errors {
            let index = u32::try_from(error.index).ok().filter(|index| *index < first.message.rows);
            let why = error.message.chars().take(MAX_WHY).collect();
            let index = index.ok_or_else(|| {
                let text = format!("BigQuery refuses row {} of {}: {why}", error.index, first.message.rows);
                Trouble::Final(Error::new(ErrorKind::Corrupt, text))
            })?;
            refused.entry(index).or_insert(why);
        }
        let numbers = first.numbers();
        let mut stays = vec![true; numbers.len()];
        refused.keys().for_each(|index| stays[*index as usize] = false);
        let gone: Vec<RefusedRow> = refused
            .into_iter()
            .map(|(index, message)| RefusedRow { row: numbers[index as usize], message })
            .collect();
        first.message = without(self.form, schema, &first.message, &stays).map_err(Trouble::Final)?;
        first.gaps.extend(gone.iter().map(|refused| refused.row));
        first.gaps.sort_unstable();
        self.refused.extend(gone);
        self.refused.sort_by_key(|refused| refused.row);
        let mut offset = first.offset;
        let first = match first.message.rows {
            0 => self.waiting.pop_front().and(None),
            _ if self.is_default => self.waiting.pop_front(),
            _ => None,
        };
        if let Some(again) = first {
            // Its order says nothing here, and the replies of the others are still to come.
            self.waiting.push_back(again);
            self.send_last().await;
        }
        for waiting in &mut self.waiting {
            waiting.offset = offset;
            offset += i64::from(waiting.message.rows);
        }
        self.next_offset = offset;
        Ok(())
    }

    async fn acknowledge_all(&mut self) -> Result<()> {
        while !self.waiting.is_empty() {
            self.acknowledge().await?;
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<Staged> {
        self.acknowledge_all().await?;
        self.connection = None;
        let rows = match self.is_default {
            true => self.next_offset,
            false => self.client.finalize(FinalizeWriteStreamRequest { name: self.stream.clone() }).await?,
        };
        if rows != self.next_offset {
            let text = format!(
                "stream {} of BigQuery has {rows} rows, {} were appended; nothing of it is visible, its entry is begun again",
                self.stream, self.next_offset
            );
            return Err(Error::new(ErrorKind::Unavailable, text));
        }
        Ok(Staged {
            name: self.stream.clone(),
            generation: Generation(0),
            bytes: self.bytes,
            crc32c: self.crc32c,
        })
    }
}

impl Waiting {
    /// Of its rows, which those are among all that were appended.
    fn numbers(&self) -> Vec<u64> {
        let all = u64::from(self.message.rows) + self.gaps.len() as u64;
        (self.first_row..self.first_row + all).filter(|row| self.gaps.binary_search(row).is_err()).collect()
    }
}

/// Whether a stream is the one that every table has.
pub(super) fn is_default(stream: &str) -> bool {
    stream.ends_with("/streams/_default")
}

enum Trouble {
    Passing(Status),
    /// The request names columns that the table may have got just now.
    Lagging(Status),
    Final(Error),
}

impl Trouble {
    /// A server may end a connection with what it could have said of a request: of which one it does not say.
    fn of_connection(status: Status) -> Self {
        match status::detailed(&status) {
            Some(e) if status::is_extra_fields(&e) => Trouble::Lagging(status),
            _ if matches!(status.code(), Code::AlreadyExists | Code::OutOfRange) => Trouble::Passing(status),
            _ => Trouble::of("rows were not appended", status),
        }
    }

    fn of(what: &str, status: Status) -> Self {
        match status.code() {
            code if status::is_passing(code) => Trouble::Passing(status),
            // One end may not know what another has made; whoever begins again finds out.
            Code::NotFound => {
                let text = format!("BigQuery: {what}: {}; their entry is begun again", status.message());
                Trouble::Final(Error::new(ErrorKind::Unavailable, text))
            }
            _ => Trouble::Final(status::error(what, &status)),
        }
    }
}

impl StagedWrite for StreamWriter {
    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.check_whole()?;
            self.is_torn = true;
            self.add(bytes).await?;
            self.is_torn = false;
            Ok(())
        })
    }

    fn settle(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.check_whole()?;
            self.is_torn = true;
            self.acknowledge_all().await?;
            self.is_torn = false;
            Ok(())
        })
    }

    fn is_eager(&self) -> bool {
        self.is_default
    }

    fn may_refuse(&self) -> bool {
        true
    }

    fn left_out(&self) -> Option<&LeftOut> {
        self.left_out.as_ref()
    }

    fn answered(&mut self) -> Answered {
        let rows = self.waiting.iter().map(|waiting| waiting.first_row).min().unwrap_or(self.rows);
        // Those of a request that goes out again are told with it.
        let later = self.refused.partition_point(|refused| refused.row < rows);
        let rest = self.refused.split_off(later);
        Answered { rows, refused: std::mem::replace(&mut self.refused, rest) }
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, Result<Staged>> {
        Box::pin(async move {
            self.check_whole()?;
            self.end().await
        })
    }

    fn buffered(&self) -> usize {
        self.waiting_bytes()
    }
}
