//! The server: connections, bodies, and what faults do to them.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

use super::faults::{Effect, Faults, Op};
use super::objects::State;
use super::reply::{Closed, Payload, Refusal, Reply};
use super::routes::Call;

/// More connections than these are closed at once.
const MAX_CONNECTIONS: usize = 1024;

/// More than these of an operation, and the oldest header is forgotten.
const MAX_AUTHORIZATIONS: usize = 1000;

/// What the server and the tests share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) url: String,
    pub(super) faults: Faults,
    state: Mutex<State>,
    requests: Mutex<BTreeMap<Op, u64>>,
    authorizations: Mutex<BTreeMap<Op, VecDeque<String>>>,
}

impl Shared {
    pub(super) fn new(url: String) -> Shared {
        Shared {
            url,
            faults: Faults::default(),
            state: Mutex::new(State::new()),
            requests: Mutex::default(),
            authorizations: Mutex::default(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn requests(&self) -> MutexGuard<'_, BTreeMap<Op, u64>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn authorizations(&self) -> MutexGuard<'_, BTreeMap<Op, VecDeque<String>>> {
        self.authorizations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until `stop` is sent or dropped.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, mut stop: oneshot::Receiver<()>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            _ = &mut stop => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Too many open files: that passes when connections end.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let shared = shared.clone();
        tokio::spawn(async move {
            let _slot = slot;
            let service = service_fn(move |request| handle(shared.clone(), request));
            // An error is a client that went away, or a fault: the connection is closed either way.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// One request. An error closes the connection with no (further) byte of a reply.
async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Payload>, Closed> {
    let (parts, mut body) = request.into_parts();
    let call = Call::read(&parts);
    let op = call.op;
    *shared.requests().entry(op).or_default() += 1;
    if let Some(authorization) = call.header("authorization") {
        let mut all = shared.authorizations();
        let seen = all.entry(op).or_default();
        seen.push_back(authorization.to_owned());
        if seen.len() > MAX_AUTHORIZATIONS {
            seen.pop_front();
        }
    }
    let fault = shared.faults.due(op);
    let limit = match (&fault, op) {
        (Some(Effect::Reset), _) => return Err(Closed),
        (Some(Effect::CutBody), Op::Insert | Op::ResumableChunk) => Some(body.size_hint().lower() / 2),
        _ => None,
    };
    let max = shared.state().rules.max_bytes;
    let bytes = match collect(&mut body, limit, max).await {
        Ok(Some(bytes)) if limit.is_none() => bytes,
        Ok(None) => {
            return Refusal::new(413, "uploadTooLarge", "the body is larger than this fake")
                .reply()
                .into_response(false);
        }
        Ok(Some(part)) | Err(part) => {
            if let Some((id, range)) = call.chunk() {
                shared.state().upload_cut(id, range, &part);
            }
            return Err(Closed);
        }
    };
    if let (Some(Effect::PersistPart), Some((id, range))) = (&fault, call.chunk()) {
        return shared.state().upload_part(id, range, &bytes).into_response(false);
    }
    let perform = {
        let shared = shared.clone();
        move || shared.state().perform(&call, &bytes, &shared.url)
    };
    match fault {
        None | Some(Effect::PersistPart) => perform().into_response(false),
        Some(Effect::Status(status)) => Refusal::injected(status).reply().into_response(false),
        Some(Effect::Throttle { status, retry_after }) => {
            let seconds = retry_after.as_millis().div_ceil(1000).to_string();
            Refusal::injected(status).with("retry-after", seconds).reply().into_response(false)
        }
        Some(Effect::StatusAfter(status)) => {
            perform();
            Refusal::injected(status).reply().into_response(false)
        }
        Some(Effect::DropReply | Effect::Reset) => {
            perform();
            Err(Closed)
        }
        Some(Effect::Late(time)) => {
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                perform();
            });
            Err(Closed)
        }
        Some(Effect::Delay(time)) => {
            // A task of its own: a client that does not wait does not stop what is on its way.
            let later = tokio::spawn(async move {
                tokio::time::sleep(time).await;
                perform()
            });
            later.await.unwrap_or_else(|_| Refusal::injected(500).reply()).into_response(false)
        }
        Some(Effect::CutBody) => perform().into_response(true),
        Some(Effect::Corrupt) => {
            let mut reply: Reply = perform();
            if matches!(reply.status, 200 | 206) {
                reply.corrupt();
            }
            reply.into_response(false)
        }
    }
}

/// The whole body, or its first `limit` bytes. What had come is in the error if the client went away;
/// `None` stands for a body of more than `max` bytes.
async fn collect(body: &mut Incoming, limit: Option<u64>, max: u64) -> Result<Option<Bytes>, Bytes> {
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut bytes = BytesMut::new();
    while bytes.len() < limit {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None => return Ok(Some(bytes.freeze())),
            Some(Err(_)) => return Err(bytes.freeze()),
            Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
        }
        if bytes.len() as u64 > max {
            return Ok(None);
        }
    }
    bytes.truncate(limit);
    Ok(Some(bytes.freeze()))
}
