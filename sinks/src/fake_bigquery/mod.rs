//! BigQuery's Storage Write API in the process, for tests: PENDING and default streams of Arrow rows, with scripted faults;
//! protobuf rows that change others, in tables with a primary key; and of its REST interface what makes and changes tables.
//!
//! Offsets, finalizing and committing follow Google's documentation. What is not needed by this crate (other kinds of streams,
//! protobuf rows that change nothing, quotas, the types of Arrow's columns) is refused or not checked, rather than guessed. Tables are made by
//! [`FakeBigQuery::create_table`] or over the REST interface, in datasets that are there. Nothing is stored: everything ends with the [`FakeBigQuery`].

mod changes;
mod quota;
mod rest;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::net::{Ipv4Addr, TcpListener};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_ipc::reader::StreamReader;
use bytes::Bytes;
use changes::Merged;
use googleapis_tonic_google_cloud_bigquery_storage_v1::google::cloud::bigquery::storage::v1::{
    AppendRowsRequest, AppendRowsResponse, BatchCommitWriteStreamsRequest, BatchCommitWriteStreamsResponse,
    CreateWriteStreamRequest, FinalizeWriteStreamRequest, FinalizeWriteStreamResponse, GetWriteStreamRequest,
    RowError, StorageError, TableFieldSchema, TableSchema, WriteStream,
    append_rows_request::{ProtoData, Rows},
    append_rows_response::{AppendResult, Response as Reply},
    storage_error::StorageErrorCode,
    table_field_schema, write_stream,
};
use googleapis_tonic_google_rpc::google::rpc;
use prost::Message;
use prost_reflect::MessageDescriptor;
use quota::Quota;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::{Service as TowerService, http};
use tonic::server::{Grpc, NamedService};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::bigquery::TableColumn;
use crate::bigquery::columns::{Column, Repetition};
use crate::bigquery::status::STORAGE_ERROR;

/// The largest request that BigQuery takes.
const MAX_REQUEST: usize = 10_000_000;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// `CreateWriteStream`.
    Create,
    /// One request of `AppendRows`.
    Append,
    /// `FinalizeWriteStream`.
    Finalize,
    /// `BatchCommitWriteStreams`.
    Commit,
    /// Any of the REST interface.
    Rest,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// It is not carried out, and answered with this.
    Refuse(Code),
    /// It is carried out, and nobody hears of it: the connection ends.
    LoseReply,
    /// Nothing is carried out, and the connection ends.
    Break,
    /// The same, once so many more requests have come on it.
    BreakAfter(usize),
    /// Of an append: its columns are not known yet.
    ExtraFields,
    /// It is carried out, and its reply comes so much later; of an append also those behind it.
    Slow(Duration),
}

#[derive(Debug, Default)]
struct State {
    /// By `projects/../datasets/../tables/..`.
    tables: BTreeMap<String, Table>,
    datasets: BTreeSet<String>,
    /// None: any is there.
    projects: Option<BTreeSet<String>>,
    /// How often the storage interface is asked before it shows a change.
    lag: u64,
    streams: BTreeMap<String, Pending>,
    faults: VecDeque<(Call, Effect)>,
    made: u64,
    is_vague: bool,
    bad: Option<BadRows>,
    hangs_up: bool,
    /// Rows with the number of another that says something else.
    ambiguous: u64,
    /// Of new streams.
    creations: Option<Quota>,
    /// Permissions that nobody has.
    denied: Vec<String>,
}

/// Rows that are refused.
#[derive(Debug)]
struct BadRows {
    column: String,
    values: Vec<i64>,
    message: String,
}

impl BadRows {
    fn of(&self, rows: &RecordBatch) -> Vec<i64> {
        let Some(column) =
            rows.column_by_name(&self.column).and_then(|column| column.as_primitive_opt::<Int64Type>())
        else {
            return Vec::new();
        };
        let values = column.iter().enumerate();
        let bad = values.filter(|(_, value)| value.is_some_and(|value| self.values.contains(&value)));
        bad.map(|(row, _)| row as i64).collect()
    }

    fn of_changes(&self, changes: &[changes::Change]) -> Vec<i64> {
        let is_bad = |change: &changes::Change| {
            let value = change.row().and_then(|row| row.get(&self.column)?.as_i64());
            value.is_some_and(|value| self.values.contains(&value))
        };
        (0..).zip(changes).filter(|(_, change)| is_bad(change)).map(|(row, _)| row).collect()
    }
}

#[derive(Debug)]
struct Table {
    columns: Vec<Column>,
    /// What the storage interface shows while the newest change is hidden; none for a table that is new.
    shown: Option<Vec<Column>>,
    hidden: u64,
    /// As the REST interface gives it.
    resource: Value,
    rows: Vec<RecordBatch>,
    merged: Merged,
}

impl Table {
    fn new(columns: Vec<Column>, resource: Value) -> Self {
        Table { columns, shown: None, hidden: 0, resource, rows: Vec::new(), merged: Merged::new() }
    }

    /// What the storage interface knows; it is told of changes late.
    fn look(&mut self) -> Option<&[Column]> {
        if self.hidden == 0 {
            return Some(&self.columns);
        }
        self.hidden -= 1;
        self.shown.as_deref()
    }
}

/// The columns of a table's primary key.
fn key_of(resource: &Value) -> Vec<String> {
    let columns = resource["tableConstraints"]["primaryKey"]["columns"].as_array();
    columns.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
}

#[derive(Debug)]
struct Pending {
    table: String,
    batches: Vec<RecordBatch>,
    rows: i64,
    is_final: bool,
    is_committed: bool,
}

impl State {
    fn etag(&mut self) -> String {
        self.made += 1;
        format!("etag-{}", self.made)
    }

    fn fault(&mut self, call: Call) -> Option<Effect> {
        let at = self.faults.iter().position(|(of, _)| *of == call)?;
        self.faults.remove(at).map(|(_, effect)| effect)
    }
}

/// A BigQuery on a port of the loopback interface, on a thread and a runtime of its own.
///
/// Methods may be called from any thread, also inside of another runtime. Dropping it closes the port and every connection.
#[derive(Debug)]
pub struct FakeBigQuery {
    state: Arc<Mutex<State>>,
    url: String,
    rest_url: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeBigQuery {
    /// Starts one without tables.
    ///
    /// # Panics
    /// If there is no port or no thread to be had.
    pub fn start() -> Self {
        FakeBigQuery::start_with(1_000)
    }

    /// The same, of which a connection takes so many requests at a time; those beyond wait.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_with(requests: u32) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (listener, url) = listen();
        let (rest_listener, rest_url) = listen();
        let rest = rest::router(state.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let service = Service(state.clone());
        let serve = move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("it is bound");
                let rest_listener = tokio::net::TcpListener::from_std(rest_listener).expect("it is bound");
                let connections = tokio_stream::wrappers::TcpListenerStream::new(listener);
                let server =
                    tonic::transport::Server::builder().max_concurrent_streams(requests).add_service(service);
                // Connections that are open end with the runtime.
                tokio::select! {
                    _ = server.serve_with_incoming(connections) => {}
                    _ = axum::serve(rest_listener, rest) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("fake-bigquery".into()).spawn(serve).expect("a thread");
        FakeBigQuery { state, url, rest_url, stop: Some(stop), thread: Some(thread) }
    }

    /// Its endpoint of the Storage Write API.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its endpoint of the REST interface.
    pub fn rest_url(&self) -> &str {
        &self.rest_url
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an empty table, such as `shop.lake.orders`; one of that name is replaced. Types that are not of one word are not
    /// told to clients.
    pub fn create_table(&self, name: &str, columns: Vec<TableColumn>) {
        self.create_table_with_key(name, columns, &[]);
    }

    /// The same, with a primary key.
    pub fn create_table_with_key(&self, name: &str, columns: Vec<TableColumn>, key: &[&str]) {
        let path = path(name);
        let rest = |column: &TableColumn| {
            let is_simple = column.data_type.chars().all(|c| c.is_ascii_alphanumeric());
            let data_type = if is_simple { column.data_type.as_str() } else { "" };
            let mode = if column.required { "REQUIRED" } else { "NULLABLE" };
            json!({"name": column.name, "type": data_type, "mode": mode})
        };
        let fields: Vec<Value> = columns.iter().map(rest).collect();
        let mut state = self.state();
        let schema = json!({ "fields": fields });
        let columns = Column::all_of_rest(&schema);
        let mut resource = json!({"schema": schema, "etag": state.etag()});
        if !key.is_empty() {
            resource["tableConstraints"] = json!({"primaryKey": {"columns": key}});
        }
        let dataset = path.split_once("/tables/").map(|(dataset, _)| dataset.to_owned());
        state.datasets.extend(dataset);
        state.tables.insert(path, Table::new(columns, resource));
    }

    /// Adds a nullable column to a table, as somebody else would, and everybody knows of it at once.
    pub fn add_column(&self, name: &str, column: &str, data_type: &str) {
        let mut state = self.state();
        let etag = state.etag();
        let Some(table) = state.tables.get_mut(&path(name)) else { return };
        if let Some(fields) = table.resource["schema"]["fields"].as_array_mut() {
            fields.push(json!({"name": column, "type": data_type, "mode": "NULLABLE"}));
        }
        table.resource["etag"] = etag.into();
        table.columns = Column::all_of_rest(&table.resource["schema"]);
    }

    /// Makes an empty dataset, such as `shop.lake`.
    pub fn create_dataset(&self, name: &str) {
        let (project, dataset) = name.split_once('.').unwrap_or_default();
        self.state().datasets.insert(format!("projects/{project}/datasets/{dataset}"));
    }

    /// A table as the REST interface gives it; null if there is none.
    pub fn table(&self, name: &str) -> Value {
        self.state().tables.get(&path(name)).map(|table| table.resource.clone()).unwrap_or_default()
    }

    /// From now on the storage interface shows a new table or column when it is asked so many times more.
    pub fn lag(&self, times: u64) {
        self.state().lag = times;
    }

    /// From now on the storage interface has not heard of a table until it is asked so many times more.
    pub fn hide(&self, name: &str, times: u64) {
        if let Some(table) = self.state().tables.get_mut(&path(name)) {
            (table.shown, table.hidden) = (None, times);
        }
    }

    /// From now on there are no projects but those that are made by this.
    pub fn create_project(&self, name: &str) {
        self.state().projects.get_or_insert_default().insert(name.to_owned());
    }

    /// The rows of a table that a query would see.
    pub fn rows(&self, name: &str) -> Vec<RecordBatch> {
        self.state().tables.get(&path(name)).map(|table| table.rows.clone()).unwrap_or_default()
    }

    /// The rows of a table with a primary key that a query would see once all changes are applied, in the order of their keys'
    /// texts; and how many rows came with the number of another that says something else, of which a real one takes either.
    pub fn merged_rows(&self, name: &str) -> (Vec<Map<String, Value>>, u64) {
        let state = self.state();
        let merged = state.tables.get(&path(name)).map(|table| &table.merged);
        let rows = merged.into_iter().flat_map(BTreeMap::values).filter_map(|newest| newest.row.clone());
        (rows.collect(), state.ambiguous)
    }

    /// Streams, and how many of them are committed.
    pub fn streams(&self) -> (usize, usize) {
        let state = self.state();
        (state.streams.len(), state.streams.values().filter(|stream| stream.is_committed).count())
    }

    /// The names of all tables.
    pub fn tables(&self) -> Vec<String> {
        let state = self.state();
        let dotted = |path: &String| path.split('/').skip(1).step_by(2).collect::<Vec<_>>().join(".");
        state.tables.keys().map(dotted).collect()
    }

    /// How much is planned that has not happened yet.
    pub fn planned(&self) -> usize {
        self.state().faults.len()
    }

    /// What happens to the next request of a kind that nothing is planned for yet.
    pub fn plan(&self, call: Call, effect: Effect) {
        self.state().faults.push_back((call, effect));
    }

    /// From now on so many streams may be made at once, and so many more each second; others are answered with RESOURCE_EXHAUSTED.
    pub fn limit_streams(&self, most: u32, each_second: u32) {
        self.state().creations = Some(Quota::new(most, each_second));
    }

    /// How many streams were refused by that.
    pub fn refused_streams(&self) -> u64 {
        self.state().creations.as_ref().map_or(0, |quota| quota.refused)
    }

    /// From now on nobody has these permissions, as far as one asks.
    pub fn deny(&self, permissions: &[&str]) {
        self.state().denied = permissions.iter().map(|name| (*name).to_owned()).collect();
    }

    /// From now on rows with one of these values in a column of INT64 are refused, with this text, and none of their requests
    /// is taken.
    pub fn refuse_rows(&self, column: &str, values: &[i64], message: &str) {
        let bad = BadRows { column: column.to_owned(), values: values.to_vec(), message: message.to_owned() };
        self.state().bad = Some(bad);
    }

    /// From now on a connection ends with a reply that refuses rows.
    pub fn hang_up(&self) {
        self.state().hangs_up = true;
    }

    /// From now on a committed stream is refused as one of a wrong state, as local-bigquery does.
    pub fn be_vague(&self) {
        self.state().is_vague = true;
    }

    /// Forgets all streams, as BigQuery does with old ones.
    pub fn forget_streams(&self) {
        self.state().streams.clear();
    }
}

impl Drop for FakeBigQuery {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
    listener.set_nonblocking(true).expect("a port can wait");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    (listener, url)
}

fn path(name: &str) -> String {
    let mut parts = name.split('.');
    let mut next = || parts.next().unwrap_or_default();
    format!("projects/{}/datasets/{}/tables/{}", next(), next(), next())
}

#[derive(Clone)]
struct Service(Arc<Mutex<State>>);

impl NamedService for Service {
    const NAME: &'static str = "google.cloud.bigquery.storage.v1.BigQueryWrite";
}

/// What tonic's generator writes; the crate with Google's descriptions has the clients alone.
impl TowerService<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        /// One call of the service that answers with one message.
        macro_rules! unary {
            ($method:ident) => {{
                let service = self.clone();
                let answer = service_fn(move |message| {
                    let service = service.clone();
                    async move { service.$method(message).await }
                });
                Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(answer, request).await) })
            }};
        }
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        match method {
            "CreateWriteStream" => unary!(create_write_stream),
            "GetWriteStream" => unary!(get_write_stream),
            "FinalizeWriteStream" => unary!(finalize_write_stream),
            "BatchCommitWriteStreams" => unary!(batch_commit_write_streams),
            "AppendRows" => {
                let service = self.clone();
                let answer = service_fn(move |requests| {
                    let service = service.clone();
                    async move { service.append_rows(requests) }
                });
                Box::pin(async move {
                    Ok(Grpc::new(ProstCodec::default())
                        .apply_max_message_size_config(Some(MAX_REQUEST), None)
                        .accept_compressed(CompressionEncoding::Gzip)
                        .streaming(answer, request)
                        .await)
                })
            }
            _ => Box::pin(async { Ok(Status::unimplemented("not in this fake").into_http()) }),
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries a call out under one lock, with what is planned for it.
    async fn carry_out<T>(
        &self,
        call: Call,
        effect: impl FnOnce(&mut State) -> Result<T, Status>,
    ) -> Answer<T> {
        let (answer, late) = {
            let mut state = self.state();
            match state.fault(call) {
                Some(Effect::Refuse(code)) => return Err(Status::new(code, "planned")),
                Some(Effect::LoseReply) => {
                    let _ = effect(&mut state);
                    return Err(Status::unavailable("the reply is lost"));
                }
                Some(Effect::Break | Effect::BreakAfter(_) | Effect::ExtraFields) => {
                    return Err(Status::unavailable("the connection breaks"));
                }
                Some(Effect::Slow(by)) => (effect(&mut state), by),
                None => (effect(&mut state), Duration::ZERO),
            }
        };
        tokio::time::sleep(late).await;
        answer.map(Response::new)
    }
}

fn schema_of(columns: &[Column]) -> TableSchema {
    TableSchema { fields: columns.iter().map(field_of).collect() }
}

fn field_of(column: &Column) -> TableFieldSchema {
    use table_field_schema::{Mode, Type};
    let name = match column.data_type.as_str() {
        "INTEGER" => "INT64",
        "FLOAT" => "DOUBLE",
        "BOOLEAN" => "BOOL",
        "RECORD" => "STRUCT",
        other => other,
    };
    let mode = match column.mode {
        Repetition::Nullable => Mode::Nullable,
        Repetition::Required => Mode::Required,
        Repetition::Repeated => Mode::Repeated,
    };
    TableFieldSchema {
        name: column.name.clone(),
        r#type: Type::from_str_name(name).unwrap_or_default() as i32,
        mode: mode as i32,
        fields: column.columns.iter().map(field_of).collect(),
        ..Default::default()
    }
}

fn no_table(name: &str) -> Status {
    Status::not_found(format!("Requested entity was not found. Entity: {name}"))
}

type AppendReplies = Pin<Box<dyn Stream<Item = Result<AppendRowsResponse, Status>> + Send>>;

impl Service {
    async fn create_write_stream(&self, request: Request<CreateWriteStreamRequest>) -> Answer<WriteStream> {
        let CreateWriteStreamRequest { parent, write_stream } = request.into_inner();
        let kind = write_stream.unwrap_or_default().r#type;
        self.carry_out(Call::Create, |state| {
            if kind != write_stream::Type::Pending as i32 {
                return Err(Status::unimplemented("this fake has PENDING streams alone"));
            }
            if let Some(quota) = &mut state.creations {
                quota.take("CreateWriteStream requests")?;
            }
            let columns =
                state.tables.get_mut(&parent).and_then(Table::look).ok_or_else(|| no_table(&parent))?;
            let table_schema = Some(schema_of(columns));
            state.made += 1;
            let name = format!("{parent}/streams/s{}", state.made);
            let stream =
                Pending { table: parent, batches: Vec::new(), rows: 0, is_final: false, is_committed: false };
            state.streams.insert(name.clone(), stream);
            Ok(WriteStream { name, r#type: kind, table_schema, ..Default::default() })
        })
        .await
    }

    fn append_rows(&self, request: Request<Streaming<AppendRowsRequest>>) -> Answer<AppendReplies> {
        let (state, mut requests) = (self.0.clone(), request.into_inner());
        let (replies, receiver) = tokio::sync::mpsc::channel(64);
        tokio::spawn(async move {
            let mut connection = AppendConnection::default();
            while let Some(Ok(request)) = requests.next().await {
                let (mut more, mut late) = (0, Duration::ZERO);
                let reply = {
                    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                    match state.fault(Call::Append) {
                        Some(Effect::Refuse(code)) => Some(error_reply(code, "planned")),
                        Some(Effect::Break) => None,
                        Some(Effect::BreakAfter(requests)) => {
                            more = requests;
                            None
                        }
                        Some(Effect::ExtraFields) => Some(extra_fields("planned")),
                        Some(Effect::Slow(by)) => {
                            late = by;
                            Some(connection.append(&mut state, request))
                        }
                        Some(Effect::LoseReply) => {
                            connection.append(&mut state, request);
                            None
                        }
                        None => Some(connection.append(&mut state, request)),
                    }
                };
                tokio::time::sleep(late).await;
                for _ in 0..more {
                    let _ = requests.next().await;
                }
                let Some(reply) = reply else {
                    let _ = replies.send(Err(Status::unavailable("the connection breaks"))).await;
                    return;
                };
                let refuses = !reply.row_errors.is_empty();
                let hangs_up = refuses && state.lock().unwrap_or_else(PoisonError::into_inner).hangs_up;
                if replies.send(Ok(reply)).await.is_err() || hangs_up {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))))
    }

    async fn get_write_stream(&self, request: Request<GetWriteStreamRequest>) -> Answer<WriteStream> {
        let name = request.into_inner().name;
        let mut state = self.state();
        let Some(table) = name.strip_suffix("/streams/_default") else {
            let stream = state.streams.get(&name).ok_or_else(|| no_table(&name))?;
            let commit_time = stream.is_committed.then(Default::default);
            return Ok(Response::new(WriteStream { name, commit_time, ..Default::default() }));
        };
        let found = state.tables.get_mut(table).and_then(Table::look).ok_or_else(|| no_table(table))?;
        let table_schema = Some(schema_of(found));
        Ok(Response::new(WriteStream { name, table_schema, ..Default::default() }))
    }

    async fn finalize_write_stream(
        &self,
        request: Request<FinalizeWriteStreamRequest>,
    ) -> Answer<FinalizeWriteStreamResponse> {
        let name = request.into_inner().name;
        self.carry_out(Call::Finalize, |state| {
            let stream = state.streams.get_mut(&name).ok_or_else(|| no_table(&name))?;
            stream.is_final = true;
            Ok(FinalizeWriteStreamResponse { row_count: stream.rows })
        })
        .await
    }

    async fn batch_commit_write_streams(
        &self,
        request: Request<BatchCommitWriteStreamsRequest>,
    ) -> Answer<BatchCommitWriteStreamsResponse> {
        let BatchCommitWriteStreamsRequest { parent, write_streams } = request.into_inner();
        self.carry_out(Call::Commit, |state| {
            let wrong = |name: &String| {
                let code = match state.streams.get(name) {
                    None => StorageErrorCode::StreamNotFound,
                    Some(stream) if stream.table != parent => StorageErrorCode::StreamNotFound,
                    Some(stream) if stream.is_committed && state.is_vague => {
                        StorageErrorCode::InvalidStreamState
                    }
                    Some(stream) if stream.is_committed => StorageErrorCode::StreamAlreadyCommitted,
                    Some(stream) if !stream.is_final => StorageErrorCode::InvalidStreamState,
                    Some(_) => return None,
                };
                let error_message = code.as_str_name().to_owned();
                Some(StorageError { code: code as i32, entity: name.clone(), error_message })
            };
            let stream_errors: Vec<StorageError> = write_streams.iter().filter_map(wrong).collect();
            if !stream_errors.is_empty() {
                return Ok(BatchCommitWriteStreamsResponse { commit_time: None, stream_errors });
            }
            for name in &write_streams {
                let Some(stream) = state.streams.get_mut(name) else { continue };
                stream.is_committed = true;
                let batches = std::mem::take(&mut stream.batches);
                state.tables.get_mut(&parent).ok_or_else(|| no_table(&parent))?.rows.extend(batches);
            }
            Ok(BatchCommitWriteStreamsResponse { commit_time: Some(Default::default()), stream_errors })
        })
        .await
    }
}

fn error_reply(code: Code, message: &str) -> AppendRowsResponse {
    let status = rpc::Status { code: code as i32, message: message.to_owned(), ..Default::default() };
    AppendRowsResponse { response: Some(Reply::Error(status)), ..Default::default() }
}

fn extra_fields(name: &str) -> AppendRowsResponse {
    let code = StorageErrorCode::SchemaMismatchExtraFields;
    let error_message = format!("Input schema has more fields than BigQuery schema, extra fields: '{name}'");
    let error =
        StorageError { code: code as i32, error_message: error_message.clone(), ..Default::default() };
    let detail = prost_types::Any { type_url: STORAGE_ERROR.into(), value: error.encode_to_vec() };
    let status =
        rpc::Status { code: Code::InvalidArgument as i32, message: error_message, details: vec![detail] };
    AppendRowsResponse { response: Some(Reply::Error(status)), ..Default::default() }
}

/// What the requests after the first one of a connection leave out.
#[derive(Default)]
struct AppendConnection {
    stream: String,
    schema: Bytes,
    message: Option<MessageDescriptor>,
    /// The table's columns, as the connection was last told.
    columns: Option<Vec<Column>>,
}

impl AppendConnection {
    /// The reply to a request, which says the table's columns if they have changed since the first.
    fn append(&mut self, state: &mut State, request: AppendRowsRequest) -> AppendRowsResponse {
        let reply = self.taken(state, request);
        let stream = state.streams.get(&self.stream).map(|stream| stream.table.as_str());
        let table = self.stream.strip_suffix("/streams/_default").or(stream).unwrap_or_default();
        let Some(now) = state.tables.get(table).filter(|table| table.hidden == 0).map(|table| &table.columns)
        else {
            return reply;
        };
        let is_news = self.columns.as_ref().is_some_and(|known| known != now);
        if is_news || self.columns.is_none() {
            self.columns = Some(now.clone());
        }
        AppendRowsResponse { updated_schema: is_news.then(|| schema_of(now)), ..reply }
    }

    fn taken(&mut self, state: &mut State, request: AppendRowsRequest) -> AppendRowsResponse {
        if !request.write_stream.is_empty() {
            self.stream = request.write_stream;
        }
        let data = match request.rows {
            Some(Rows::ArrowRows(data)) => data,
            Some(Rows::ProtoRows(data)) => return self.change(state, data),
            None => return error_reply(Code::InvalidArgument, "there are no rows"),
        };
        if let Some(schema) = data.writer_schema {
            self.schema = schema.serialized_schema;
        }
        let State { streams, tables, bad, .. } = state;
        let default = self.stream.strip_suffix("/streams/_default");
        let mut stream = match (default, streams.get_mut(&self.stream)) {
            (Some(_), _) => None,
            (None, Some(stream)) => Some(stream),
            (None, None) => return error_reply(Code::NotFound, "there is no such stream"),
        };
        if let Some(stream) = &stream {
            if stream.is_final {
                return error_reply(Code::InvalidArgument, "the stream is finalized");
            }
            let Some(offset) = request.offset else {
                return error_reply(Code::Unimplemented, "this fake wants offsets");
            };
            match offset.cmp(&stream.rows) {
                std::cmp::Ordering::Less => {
                    return error_reply(Code::AlreadyExists, "the offset is within the stream");
                }
                std::cmp::Ordering::Greater => {
                    return error_reply(Code::OutOfRange, "the offset is beyond the stream");
                }
                std::cmp::Ordering::Equal => {}
            }
        } else if request.offset.is_some() {
            return error_reply(Code::InvalidArgument, "the default stream has no offsets");
        }
        let table = stream.as_ref().map_or(default.unwrap_or_default(), |stream| &stream.table).to_owned();
        let Some(table) = tables.get_mut(&table) else {
            return error_reply(Code::NotFound, "there is no such table");
        };
        let rows = data.rows.unwrap_or_default().serialized_record_batch;
        let bytes = [&self.schema[..], &rows[..]].concat();
        let decoded =
            StreamReader::try_new(&bytes[..], None).and_then(|mut reader| reader.next().transpose());
        let batch = match decoded {
            Ok(Some(batch)) => batch,
            Ok(None) => return error_reply(Code::InvalidArgument, "there are no rows"),
            Err(e) => return error_reply(Code::InvalidArgument, &format!("these are no rows: {e}")),
        };
        let schema = batch.schema();
        let is_known = |name: &str| table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
        if let Some(extra) = schema.fields().iter().find(|field| !is_known(field.name())) {
            return extra_fields(extra.name());
        }
        if let Some(bad) = bad {
            let refused = bad.of(&batch);
            if !refused.is_empty() {
                return refuse(refused, &bad.message);
            }
        }
        match &mut stream {
            Some(stream) => {
                stream.rows += batch.num_rows() as i64;
                stream.batches.push(batch);
            }
            None => table.rows.push(batch),
        }
        let taken = AppendResult { offset: request.offset };
        AppendRowsResponse { response: Some(Reply::AppendResult(taken)), ..Default::default() }
    }

    fn change(&mut self, state: &mut State, data: ProtoData) -> AppendRowsResponse {
        let wrong = |why: &str| error_reply(Code::InvalidArgument, why);
        if let Some(descriptor) = data.writer_schema.and_then(|schema| schema.proto_descriptor) {
            match changes::described(descriptor) {
                Ok(message) => self.message = Some(message),
                Err(why) => return wrong(&why),
            }
        }
        let Some(message) = &self.message else { return wrong("nothing says how to read the rows") };
        let Some(table) = self.stream.strip_suffix("/streams/_default") else {
            return wrong("changes go to the default stream");
        };
        let Some(table) = state.tables.get_mut(table) else {
            return error_reply(Code::NotFound, "there is no such table");
        };
        let key = key_of(&table.resource);
        if key.is_empty() {
            return wrong("the table has no primary key");
        }
        if let Some(extra) = changes::extra(message, &table.columns) {
            return extra_fields(&extra);
        }
        let rows = data.rows.unwrap_or_default().serialized_rows;
        let read = rows.iter().map(|row| changes::read(message, row, &table.columns, &key));
        let changes = match read.collect::<Result<Vec<_>, _>>() {
            Ok(changes) => changes,
            Err(why) => return wrong(&why),
        };
        if let Some(bad) = &state.bad {
            let refused = bad.of_changes(&changes);
            if !refused.is_empty() {
                return refuse(refused, &bad.message);
            }
        }
        for change in changes {
            state.ambiguous += u64::from(changes::apply(&mut table.merged, change));
        }
        let taken = AppendResult { offset: None };
        AppendRowsResponse { response: Some(Reply::AppendResult(taken)), ..Default::default() }
    }
}

/// That rows are refused, and nothing of the request is taken.
fn refuse(rows: Vec<i64>, message: &str) -> AppendRowsResponse {
    let row_errors =
        rows.into_iter().map(|index| RowError { index, message: message.to_owned(), ..Default::default() });
    let reply = error_reply(Code::InvalidArgument, "Errors found while processing rows");
    AppendRowsResponse { row_errors: row_errors.collect(), ..reply }
}
