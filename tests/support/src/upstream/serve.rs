//! The upstream's thread: connections in, requests read, scripts played, callers watched.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Shared;
use super::dialect::Exchange;
use super::play::{After, Player};
use super::record::{Request, Seen};
use crate::wire::{Framing, Wire, framing, owned};

/// Serves until told to stop; then every connection breaks.
pub(crate) fn run(listener: TcpListener, shared: &Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for the upstream");
    runtime.block_on(async {
        listener.set_nonblocking(true).expect("a non-blocking listener");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener of the runtime");
        let mut connections = JoinSet::new();
        let accept = async {
            for number in 0.. {
                let Ok((stream, _)) = listener.accept().await else { continue };
                connections.spawn(connection(stream, Arc::clone(shared), number));
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stopped => {}
        }
    });
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, number: usize) {
    // Fails only on a socket that is gone, which the first read tells as well.
    let _ = stream.set_nodelay(true);
    let (read, mut write) = stream.into_split();
    let mut wire = Wire::new(read);
    while let Ok(Some(request)) = read_request(&mut wire).await {
        let at = Instant::now();
        let (exchange, script, index) = arrive(&shared, &request, number, at);
        let mut player = Player::new(&exchange, &mut write, &shared.models, &request.path);
        // An answer that is complete is no abort, even when the caller closes right after it.
        let after = tokio::select! {
            biased;
            after = player.play(script.as_ref()) => after,
            () = wire.until_gone() => After::CallerLeft,
        };
        {
            let mut state = shared.state();
            let seen = &mut state.log(exchange.operation)[index];
            seen.ended = Some(at.elapsed());
            if after == After::CallerLeft {
                seen.aborted_after = Some(at.elapsed());
            }
        }
        match after {
            After::KeepAlive if !request.wants_close() => {}
            After::Reset => {
                // Both halves go without a FIN; closing with a zero linger is what makes the RST.
                if write.as_ref().set_zero_linger().is_ok() {
                    write.forget();
                }
                return;
            }
            After::KeepAlive | After::Close | After::CallerLeft => return,
        }
    }
}

fn arrive(
    shared: &Shared,
    request: &Request,
    connection: usize,
    at: Instant,
) -> (Exchange, Option<crate::script::Script>, usize) {
    let mut state = shared.state();
    let number = state.seen.len();
    let exchange = Exchange::new(shared.dialect, &request.method, &request.path, &request.body, number);
    let log = state.log(exchange.operation);
    let index = log.len();
    log.push(Seen {
        at,
        connection,
        method: request.method.clone(),
        path: request.path.clone(),
        headers: request.headers.clone(),
        body: request.body.clone(),
        model: exchange.model.clone(),
        stream: exchange.stream,
        key: request.key(),
        aborted_after: None,
        ended: None,
    });
    let script = state.script(exchange.operation, &exchange.model);
    (exchange, script, index)
}

async fn read_request(wire: &mut Wire<OwnedReadHalf>) -> io::Result<Option<Request>> {
    let Some(head) = wire.head().await? else { return Ok(None) };
    let mut slots = [httparse::EMPTY_HEADER; 128];
    let mut parsed = httparse::Request::new(&mut slots);
    parsed.parse(&head).map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))?;
    let method = parsed.method.unwrap_or_default().to_owned();
    let path = parsed.path.unwrap_or_default().to_owned();
    let headers = owned(parsed.headers);
    let body = wire.body(framing(&headers, Framing::Ended)).await?;
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Ok(Some(Request { method, path, headers, body }))
}
