//! `POST /v1/detect`: an image in, detections out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use docent_coco::{Exif, image_header_of_bytes};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout;

use super::app::App;
use super::problem::Problem;
use super::response::json;
use super::upload::{CURLS, Way};
use super::worker::{Done, Job};

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

/// What is wrong with an image that was sent in this way. curl's own type says nothing, so that a body that is no image is one of a
/// type that is not read.
fn explained(way: &Way, problem: Problem) -> Problem {
    match (way, problem) {
        (Way::Curl, Problem::Unreadable(_)) => Problem::Type(CURLS.to_owned()),
        (_, other) => other,
    }
}

async fn answer(
    app: &App,
    query: Result<Query<Wanted>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let deadline = Instant::now() + app.limits.time;
    let (head, body) = request.into_parts();
    let (threshold, exif, way, slot) = match accept(app, query, &head.headers) {
        Ok(accepted) => accepted,
        Err(problem) => {
            drain(body).await;
            return Err(problem);
        }
    };
    let body = read(app, body, way.most_bytes(app.limits.bytes), deadline).await?;
    let bytes = way.image(body, app.limits.bytes).await?;
    let header =
        image_header_of_bytes(&bytes, "the body").map_err(|error| explained(&way, Problem::unreadable(error)))?;
    let (width, height) = (header.width as usize, header.height as usize);
    if u64::from(header.width) * u64::from(header.height) > app.limits.pixels {
        return Err(Problem::TooManyPixels { width, height, most: app.limits.pixels });
    }
    let (reply, answer) = oneshot::channel();
    app.worker.send(Job { bytes, upright: exif == Exif::Apply, queued: Instant::now(), reply, slot })?;
    let done = match timeout(deadline.saturating_duration_since(Instant::now()), answer).await {
        Err(_) => return Err(Problem::Late(app.limits.time)),
        Ok(Err(_)) => return Err(Problem::Failed("its thread has ended".to_owned())),
        Ok(Ok(done)) => done.map_err(|problem| explained(&way, problem))?,
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

/// What can be said of a request before its body is read: what it asks for, how it sends its image, and its slot.
fn accept(
    app: &App,
    query: Result<Query<Wanted>, QueryRejection>,
    headers: &HeaderMap,
) -> Result<(f32, Exif, Way, OwnedSemaphorePermit), Problem> {
    let Query(wanted) = query.map_err(|rejection| Problem::Query(rejection.body_text()))?;
    let threshold = wanted.threshold.unwrap_or(app.threshold);
    if !(0.0..=1.0).contains(&threshold) {
        return Err(Problem::Query(format!("threshold={threshold}: a score lies between 0 and 1")));
    }
    let kind = headers.get(header::CONTENT_TYPE);
    let way = Way::of(kind.map(|kind| String::from_utf8_lossy(kind.as_bytes())).as_deref())?;
    let most = way.most_bytes(app.limits.bytes);
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|n| n > most) {
        return Err(Problem::TooLarge { what: "body", most });
    }
    let slot = Arc::clone(&app.slots).try_acquire_owned();
    let slot = slot.map_err(|_| Problem::Busy { retry_after: retry_after(app) })?;
    Ok((threshold, wanted.exif, way, slot))
}

/// The whole body, of at most `most` bytes.
async fn read(app: &App, body: Body, most: usize, deadline: Instant) -> Result<Bytes, Problem> {
    let left = deadline.saturating_duration_since(Instant::now());
    match timeout(left, to_bytes(body, most)).await {
        Err(_) => Err(Problem::Slow(app.limits.time)),
        Ok(Err(e)) => {
            // The limit's error has no public type to be told by.
            let text = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
            let large = text.contains("length limit");
            Err(if large { Problem::TooLarge { what: "body", most } } else { Problem::Torn(text) })
        }
        Ok(Ok(bytes)) => Ok(bytes),
    }
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
