//! BigQuery's Storage Write API: who is asked, as whom, and how patiently.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
    AppendRowsRequest, AppendRowsResponse, BatchCommitWriteStreamsRequest, BatchCommitWriteStreamsResponse,
    CreateWriteStreamRequest, FinalizeWriteStreamRequest, GetWriteStreamRequest, TableSchema, WriteStream,
    WriteStreamView, big_query_write_client::BigQueryWriteClient, write_stream,
};
use tokio::sync::mpsc;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::status;
use crate::error::{Error, ErrorKind, Result};
use crate::gcs::credentials::Credentials;

const GOOGLE: &str = "https://bigquerystorage.googleapis.com";
/// Of a call that is no stream.
const CALL: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// A reply may name all rows of a request.
const MAX_REPLY: usize = 64 << 20;

/// Appends that stay open on one connection: Google's front ends take a hundred requests on one, and those beyond would wait
/// without a word.
const APPENDS: usize = 50;

/// Paces what a quota limits, for all partitions of a process: slower when it was refused, and by and by faster again.
#[derive(Debug)]
struct Pace {
    /// Between two calls, at the least.
    least: Duration,
    now: Mutex<Paced>,
    /// When the last one had its turn: whoever waits for theirs holds it.
    turn: tokio::sync::Mutex<Instant>,
}

#[derive(Debug)]
struct Paced {
    between: Duration,
    slowed: Instant,
}

impl Pace {
    const LONGEST: Duration = Duration::from_secs(2);
    /// What is refused within that time is refused for one reason.
    const ONCE: Duration = Duration::from_millis(250);

    fn new(each_second: u32) -> Self {
        let least = Duration::from_secs(1) / each_second.max(1);
        let now = Instant::now();
        let paced = Paced { between: least, slowed: now.checked_sub(Self::ONCE).unwrap_or(now) };
        Pace { least, now: Mutex::new(paced), turn: tokio::sync::Mutex::new(now) }
    }

    fn now(&self) -> std::sync::MutexGuard<'_, Paced> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for one's turn, in the order of asking.
    async fn turn(&self) {
        let mut last = self.turn.lock().await;
        let at = *last + self.now().between;
        tokio::time::sleep_until(at.into()).await;
        *last = Instant::now();
    }

    fn refused(&self) {
        let mut now = self.now();
        if now.slowed.elapsed() >= Self::ONCE {
            now.between = (now.between * 2).min(Self::LONGEST.max(self.least));
            now.slowed = Instant::now();
        }
    }

    fn taken(&self) {
        let mut now = self.now();
        now.between = now.between.mul_f64(0.98).max(self.least);
    }
}

/// How long a stream is waited for that a quota refuses: Google refills those that are not by the second within minutes.
const REFILL: Duration = Duration::from_secs(900);

#[derive(Clone)]
pub(super) struct Client {
    /// Of new streams.
    pace: Arc<Pace>,
    /// For calls that are soon answered.
    channel: Channel,
    endpoint: Endpoint,
    /// For appends, and how many are open on each.
    appends: Arc<Mutex<Vec<Appends>>>,
    gzip: bool,
    credentials: Arc<Credentials>,
}

/// A connection, and what counts the appends that are open on it.
type Appends = (Channel, Weak<()>);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

/// How often something is tried again that fails in passing: over about half a minute, which outlasts the refill of a quota
/// by the second; or for as long as is said.
pub(super) struct Patience {
    failures: u32,
    end: Option<Instant>,
}

impl Patience {
    const MOST: u32 = 10;
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(10);

    pub(super) fn new() -> Self {
        Patience { failures: 0, end: None }
    }

    pub(super) fn of(time: Duration) -> Self {
        Patience { failures: 0, end: Some(Instant::now() + time) }
    }

    /// # Errors
    /// The given one, if it has failed too often.
    pub(super) async fn wait(&mut self, error: impl FnOnce() -> Error) -> Result<()> {
        self.failures += 1;
        let is_over = match self.end {
            Some(end) => Instant::now() >= end,
            None => self.failures >= Self::MOST,
        };
        if is_over {
            return Err(error());
        }
        let most = Self::FIRST.saturating_mul(1 << self.failures.min(10)).min(Self::LONGEST);
        let wait = most.mul_f64(rand::random_range(0.5..1.0));
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

impl Client {
    /// Connects when it is first needed.
    pub(super) fn new(
        endpoint: Option<&str>,
        credentials: Arc<Credentials>,
        gzip: bool,
        streams_per_second: u32,
    ) -> Result<Self> {
        let wrong = |e: tonic::transport::Error| {
            Error::new(ErrorKind::InvalidConfig, "the endpoint of BigQuery cannot be used").with_source(e)
        };
        let place = endpoint.unwrap_or(GOOGLE);
        let mut endpoint = Endpoint::from_shared(place.to_owned()).map_err(wrong)?.connect_timeout(CONNECT);
        // A stream of appends may be silent for as long as rows are gathered.
        endpoint = endpoint.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_while_idle(true);
        if place.starts_with("https://") {
            endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(wrong)?;
        }
        let (channel, appends) = (endpoint.connect_lazy(), Arc::default());
        let pace = Arc::new(Pace::new(streams_per_second));
        Ok(Client { pace, channel, endpoint, appends, gzip, credentials })
    }

    fn stub(&self) -> BigQueryWriteClient<Channel> {
        BigQueryWriteClient::new(self.channel.clone()).max_decoding_message_size(MAX_REPLY)
    }

    /// A connection with room for one more append, which is counted for as long as the second is there.
    fn append_channel(&self) -> (Channel, Arc<()>) {
        let mut appends = self.appends.lock().unwrap_or_else(PoisonError::into_inner);
        appends.retain(|(_, open)| open.strong_count() > 0);
        let room = appends.iter().find(|(_, open)| open.strong_count() < APPENDS);
        if let Some((channel, open)) =
            room.and_then(|(channel, open)| Some((channel.clone(), open.upgrade()?)))
        {
            return (channel, open);
        }
        let (channel, open) = (self.endpoint.connect_lazy(), Arc::new(()));
        appends.push((channel.clone(), Arc::downgrade(&open)));
        (channel, open)
    }

    /// With a token, and what routes a request to the right place.
    async fn request<T>(&self, message: T, routed: (&str, &str)) -> Result<Request<T>, Status> {
        let (headers, _) = self.credentials.headers().await.map_err(|e| match e.kind() {
            ErrorKind::Unavailable => Status::unavailable(e.to_string()),
            _ => Status::permission_denied(e.to_string()),
        })?;
        let mut metadata = MetadataMap::from_headers(headers);
        let (name, value) = routed;
        let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
        if let Ok(value) = MetadataValue::try_from(format!("{name}={value}")) {
            metadata.insert("x-goog-request-params", value);
        }
        let mut request = Request::new(message);
        *request.metadata_mut() = metadata;
        Ok(request)
    }

    /// Tries a call until it is answered, or fails for good.
    async fn call<T, M, F>(&self, what: &str, message: M, routed: (&str, &str), call: F) -> Result<T, Status>
    where
        M: Clone,
        F: AsyncFn(BigQueryWriteClient<Channel>, Request<M>) -> Result<tonic::Response<T>, Status>,
    {
        self.call_while(status::is_passing, what, message, routed, call).await
    }

    /// Tries a call until it is answered, or fails with something else.
    async fn call_while<T, M, F>(
        &self,
        is_passing: fn(Code) -> bool,
        what: &str,
        message: M,
        routed: (&str, &str),
        call: F,
    ) -> Result<T, Status>
    where
        M: Clone,
        F: AsyncFn(BigQueryWriteClient<Channel>, Request<M>) -> Result<tonic::Response<T>, Status>,
    {
        let mut patience = Patience::new();
        loop {
            let answered = async {
                let request = self.request(message.clone(), routed).await?;
                tokio::time::timeout(CALL, call(self.stub(), request))
                    .await
                    .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
            };
            match answered.await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if is_passing(status.code()) => {
                    tracing::warn!(%status, "asking BigQuery again: {what}");
                    let gives_up = || Error::new(ErrorKind::Unavailable, "");
                    if patience.wait(gives_up).await.is_err() {
                        return Err(status);
                    }
                }
                Err(status) => return Err(status),
            }
        }
    }

    /// A new stream of which nothing is seen before it is committed: its name, and the table's columns.
    pub(super) async fn create_pending(&self, table: &str) -> Result<(String, Option<TableSchema>), Status> {
        let stream = WriteStream { r#type: write_stream::Type::Pending as i32, ..Default::default() };
        let message = CreateWriteStreamRequest { parent: table.to_owned(), write_stream: Some(stream) };
        let mut patience: Option<Patience> = None;
        loop {
            self.pace.turn().await;
            let is_passing = |code| code != Code::ResourceExhausted && status::is_passing(code);
            let (what, routed) = ("no stream was made", ("parent", table));
            let created = self
                .call_while(is_passing, what, message.clone(), routed, async |mut stub, request| {
                    stub.create_write_stream(request).await
                })
                .await;
            let status = match created {
                Ok(created) => {
                    self.pace.taken();
                    return Ok((created.name, created.table_schema));
                }
                Err(status) if status.code() != Code::ResourceExhausted => return Err(status),
                Err(status) => status,
            };
            self.pace.refused();
            let patience = patience.get_or_insert_with(|| {
                tracing::warn!(table, %status, "waiting for a new stream of BigQuery");
                Patience::of(REFILL)
            });
            let gives_up = || Error::new(ErrorKind::Unavailable, "");
            if patience.wait(gives_up).await.is_err() {
                return Err(status);
            }
        }
    }

    /// Whether a stream says that it was committed.
    pub(super) async fn is_committed(&self, stream: &str) -> Result<bool, Status> {
        let message = GetWriteStreamRequest { name: stream.to_owned(), view: WriteStreamView::Basic as i32 };
        let found = self
            .call("a stream was not looked at", message, ("name", stream), async |mut stub, request| {
                stub.get_write_stream(request).await
            })
            .await?;
        Ok(found.commit_time.is_some())
    }

    /// The stream that every table has, and the table's columns.
    pub(super) async fn default_stream(&self, table: &str) -> Result<(String, Option<TableSchema>), Status> {
        let name = format!("{table}/streams/_default");
        let message = GetWriteStreamRequest { name: name.clone(), view: WriteStreamView::Full as i32 };
        let found = self
            .call("the table was not looked at", message, ("name", &name), async |mut stub, request| {
                stub.get_write_stream(request).await
            })
            .await?;
        Ok((name, found.table_schema))
    }

    /// How many rows the stream has; no more can be appended.
    pub(super) async fn finalize(&self, message: FinalizeWriteStreamRequest) -> Result<i64> {
        let name = message.name.clone();
        let answer = self
            .call("a stream was not finalized", message, ("name", &name), async |mut stub, request| {
                stub.finalize_write_stream(request).await
            })
            .await;
        answer
            .map(|answer| answer.row_count)
            .map_err(|e| status::error(&format!("stream {name} was not finalized"), &e))
    }

    /// Once: whoever asks has its own way to ask again.
    pub(super) async fn commit(
        &self,
        table: &str,
        stream: &str,
    ) -> Result<BatchCommitWriteStreamsResponse, Status> {
        let message = BatchCommitWriteStreamsRequest {
            parent: table.to_owned(),
            write_streams: vec![stream.to_owned()],
        };
        let request = self.request(message, ("parent", table)).await?;
        let answer = tokio::time::timeout(CALL, self.stub().batch_commit_write_streams(request)).await;
        Ok(answer.map_err(|_| Status::deadline_exceeded("no answer in time"))??.into_inner())
    }

    /// Replies, and what counts the append as open.
    pub(super) async fn append_rows(
        &self,
        requests: mpsc::Receiver<AppendRowsRequest>,
        stream: &str,
    ) -> Result<(Streaming<AppendRowsResponse>, Arc<()>), Status> {
        let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
        let request = self.request(requests, ("write_stream", stream)).await?;
        let (channel, open) = self.append_channel();
        let mut stub = BigQueryWriteClient::new(channel).max_decoding_message_size(MAX_REPLY);
        if self.gzip {
            stub = stub.send_compressed(CompressionEncoding::Gzip);
        }
        Ok((stub.append_rows(request).await?.into_inner(), open))
    }
}
