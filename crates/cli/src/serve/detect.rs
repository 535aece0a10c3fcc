//! `POST /v1/detect`: an image's bytes in, detections out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use docent_coco::{Exif, image_header_of_bytes};
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::worker::{Done, Job};
use super::{App, Problem, json};

/// Bytes of a refused body that are read and thrown away, so that the client gets to read the answer.
const DRAINED: usize = 64 << 20;
/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Boxes that score at least this.
    threshold: Option<f32>,
    /// Whether the image's EXIF rotation is applied before it is looked at.
    #[serde(default)]
    exif: Exif,
}

/// Answers with detections, or with what is wrong.
pub async fn handle(
    State(app): State<Arc<App>>,
    query: Result<Query<Wanted>, QueryRejection>,
    request: Request,
) -> Response {
    answer(&app, query, request).await.unwrap_or_else(Problem::into_response)
}

async fn answer(
    app: &App,
    query: Result<Query<Wanted>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let deadline = Instant::now() + app.limits.time;
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let body = request.into_body();
    let refused = match query {
        Err(rejection) => Err(Problem::Query(rejection.body_text())),
        Ok(Query(wanted)) => {
            let threshold = wanted.threshold.unwrap_or(app.threshold);
            if !(0.0..=1.0).contains(&threshold) {
                Err(Problem::Query(format!("threshold={threshold}: a score lies between 0 and 1")))
            } else if length.is_some_and(|n| n > app.limits.bytes) {
                Err(Problem::TooLarge { most: app.limits.bytes })
            } else {
                let slot = Arc::clone(&app.slots).try_acquire_owned();
                slot.map(|slot| (threshold, wanted.exif, slot))
                    .map_err(|_| Problem::Busy { retry_after: retry_after(app) })
            }
        }
    };
    let (threshold, exif, slot) = match refused {
        Ok(accepted) => accepted,
        Err(problem) => {
            drain(body).await;
            return Err(problem);
        }
    };
    let bytes = read(app, body, deadline).await?;
    let header = image_header_of_bytes(&bytes, "the body").map_err(Problem::unreadable)?;
    let (width, height) = (header.width as usize, header.height as usize);
    if u64::from(header.width) * u64::from(header.height) > app.limits.pixels {
        return Err(Problem::TooManyPixels { width, height, most: app.limits.pixels });
    }
    let (reply, answer) = oneshot::channel();
    app.worker.send(Job { bytes, upright: exif == Exif::Apply, queued: Instant::now(), reply, slot })?;
    let done = match timeout(deadline.saturating_duration_since(Instant::now()), answer).await {
        Err(_) => return Err(Problem::Late(app.limits.time)),
        Ok(Err(_)) => return Err(Problem::Failed("its thread has ended".to_owned())),
        Ok(Ok(done)) => done?,
    };
    Ok(respond(app, done, threshold))
}

fn respond(app: &App, mut done: Done, threshold: f32) -> Response {
    done.found.retain(|found| found.score >= threshold);
    app.metrics.detected(done.waited, done.seconds, done.found.len());
    let body = serde_json::json!({
        "image": { "width": done.width, "height": done.height },
        "threshold": threshold,
        "detections": done.found,
        "seconds": { "waited": done.waited, "detect": done.seconds },
    });
    json(StatusCode::OK, &body)
}

/// The whole body, within its limits.
async fn read(app: &App, body: Body, deadline: Instant) -> Result<Bytes, Problem> {
    let left = deadline.saturating_duration_since(Instant::now());
    let bytes = match timeout(left, to_bytes(body, app.limits.bytes)).await {
        Err(_) => return Err(Problem::Slow(app.limits.time)),
        Ok(Err(e)) => {
            // The limit's error has no public type to be told by.
            let text = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
            let large = text.contains("length limit");
            return Err(if large { Problem::TooLarge { most: app.limits.bytes } } else { Problem::Torn(text) });
        }
        Ok(Ok(bytes)) => bytes,
    };
    if bytes.is_empty() { Err(Problem::Empty) } else { Ok(bytes) }
}

/// Seconds after which a slot is likely free.
fn retry_after(app: &App) -> u64 {
    (app.metrics.usual_seconds() * app.slots() as f64).ceil().clamp(1.0, 60.0) as u64
}

/// Reads and throws away: a connection that is closed over unread bytes takes the answer with it.
async fn drain(body: Body) {
    let _ = timeout(DRAIN_TIME, discard(body, DRAINED)).await;
}

async fn discard(mut body: Body, most: usize) {
    use axum::body::HttpBody;
    let mut seen = 0;
    while seen < most {
        let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
        match frame {
            Some(Ok(frame)) => seen += frame.data_ref().map_or(0, Bytes::len),
            _ => return,
        }
    }
}
