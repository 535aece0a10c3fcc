//! `docent serve`: a detector over HTTP.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::http::{HeaderValue, Uri};
use docent_coco::{MAX_PIXELS, Rgb8};
use docent_model::Predictor;
use docent_study::Registry;

use crate::commands::time;
use crate::output::{say, tell};
use crate::runtime::outlive_clients;
use crate::serve::{Found, Limits, Model, serve};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  docent serve --checkpoint runs/shapes-seed0/distilled/checkpoints/last.safetensors\n  \
                        curl --data-binary @picture.jpg 'http://127.0.0.1:8080/v1/detect?threshold=0.5'\n  \
                        curl -F file=@picture.jpg http://127.0.0.1:8080/v1/detect\n\n\
                        Ctrl-C (or SIGTERM) answers what is being asked and ends with code 0; a second one ends at once."
)]
pub struct Args {
    /// A detector that `docent train` or `docent weights convert` wrote.
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Address and port; port 0 takes a free one. Whoever reaches the address may ask: nobody has to log in.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = address)]
    listen: SocketAddr,
    /// Answer boxes that score at least this, where a request says nothing.
    #[arg(long, default_value_t = 0.5)]
    threshold: f32,
    /// Bytes of an image file at most.
    #[arg(long, value_name = "N", default_value_t = Limits::default().bytes)]
    max_bytes: usize,
    /// Pixels of an image at most.
    #[arg(long, value_name = "N", default_value_t = Limits::default().pixels)]
    max_pixels: u64,
    /// A request's time at most, from its arrival to its answer: 30s, 2m.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    time: Duration,
    /// Requests that may wait while one is worked on; more are answered with 503.
    #[arg(long, value_name = "N", default_value_t = Limits::default().queue)]
    queue: usize,
    /// Let pages of this origin ask from a browser: `http://example.org`, or `*` for any. May be repeated.
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    cors: Vec<HeaderValue>,
}

/// An origin as browsers spell it: scheme and host in lower case, no port that the scheme means by itself, no path.
fn origin(text: &str) -> Result<HeaderValue, String> {
    // `null` is the origin of a page that was opened from disk.
    if text != "*" && text != "null" {
        let known = text.parse::<Uri>().ok().and_then(|uri| spelled(&uri));
        let known = known.ok_or("give an origin, such as http://example.org or http://localhost:3000")?;
        if known != text {
            return Err(format!("browsers do not send this as an origin; write {known}"));
        }
    }
    HeaderValue::from_str(text).map_err(|e| e.to_string())
}

/// The origin of an address.
fn spelled(uri: &Uri) -> Option<String> {
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let own = match scheme.as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let port = uri.port_u16().filter(|port| Some(*port) != own).map_or(String::new(), |port| format!(":{port}"));
    Some(format!("{scheme}://{}{port}", uri.host()?.to_ascii_lowercase()))
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "give an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080")
}

/// Loads the detector and serves it until a signal comes.
pub fn run(args: &Args, registry: &Registry) -> Result<()> {
    ensure!((0.0..=1.0).contains(&args.threshold), "--threshold {}: a score lies in 0..=1", args.threshold);
    ensure!(args.max_bytes >= 1 << 10, "--max-bytes {}: at least 1024", args.max_bytes);
    ensure!((1..=MAX_PIXELS).contains(&args.max_pixels), "--max-pixels {}: give 1 to {MAX_PIXELS}", args.max_pixels);
    ensure!(args.queue <= 1 << 10, "--queue {}: at most 1024; a longer one only makes people wait", args.queue);
    let predictor = Predictor::load(&args.checkpoint, &registry.models)?;
    let about = serde_json::json!({
        "recipe": predictor.meta.recipe,
        "sha256": predictor.sha256,
        "classes": predictor.meta.categories.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
    });
    let limits = Limits { bytes: args.max_bytes, pixels: args.max_pixels, time: args.time, queue: args.queue };
    // One thread waits for the network; the model has its own, and rayon's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(args.listen)
            .await
            .with_context(|| format!("cannot listen on {}: choose another --listen", args.listen))?;
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            tell!(
                "docent: everybody who reaches {address} may use this; put a server that asks who they are before it"
            );
        }
        say!("serving {} on http://{address}/ (Ctrl-C ends)", args.checkpoint.display());
        std::io::stdout().flush()?;
        outlive_clients();
        serve(listener, model(predictor), about, args.threshold, limits, &args.cors, stop()).await
    })?;
    // Whoever read our words may be gone, which no signal tells any more.
    let _ = writeln!(std::io::stdout(), "stopped");
    Ok(())
}

/// The predictor as the service takes it.
fn model(predictor: Predictor) -> Model {
    Box::new(move |image: &Rgb8| {
        let found = predictor.detect(image).map_err(|e| e.to_string())?;
        let object = |d: docent_detect::Detection| {
            let category = predictor.category(d.label)?;
            let [x1, y1, x2, y2] = d.bbox;
            Some(Found {
                label: category.name.clone(),
                category_id: category.id,
                score: d.score,
                bbox: [x1, y1, x2 - x1, y2 - y1],
            })
        };
        Ok(found.into_iter().filter_map(object).collect())
    })
}

/// Done at the first signal; the second one ends the program.
async fn stop() {
    signal().await;
    let _ = writeln!(std::io::stderr(), "docent: stopping after what is being asked; a second signal stops at once");
    tokio::spawn(async { std::process::exit(128 + signal().await) });
}

const SIGINT: i32 = 2;

/// Waits for SIGINT or SIGTERM; its number.
#[cfg(unix)]
async fn signal() -> i32 {
    use tokio::signal::unix::{SignalKind, signal};
    const SIGTERM: i32 = 15;
    if let Ok(mut terminate) = signal(SignalKind::terminate()) {
        return tokio::select! {
            _ = terminate.recv() => SIGTERM,
            _ = tokio::signal::ctrl_c() => SIGINT,
        };
    }
    // Without SIGTERM there is still Ctrl-C.
    drop(tokio::signal::ctrl_c().await);
    SIGINT
}

/// Waits for Ctrl-C.
#[cfg(not(unix))]
async fn signal() -> i32 {
    drop(tokio::signal::ctrl_c().await);
    SIGINT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_spelled_as_browsers_spell_them() {
        for right in ["*", "null", "http://example.org", "https://example.org:8443", "http://[::1]:3000", "app://x"] {
            assert_eq!(origin(right).unwrap(), right);
        }
        for (wrong, right) in [
            ("HTTP://example.org", "http://example.org"),
            ("http://Example.ORG", "http://example.org"),
            ("http://example.org:80", "http://example.org"),
            ("https://example.org:443", "https://example.org"),
            ("http://example.org/", "http://example.org"),
            ("http://example.org/page?x=1", "http://example.org"),
            ("http://me@example.org:8000", "http://example.org:8000"),
        ] {
            let message = origin(wrong).unwrap_err();
            assert!(message.ends_with(&format!("write {right}")), "{wrong}: {message}");
        }
        for wrong in ["", "example.org", "NULL", "http://", "/x", "http://ex ample.org"] {
            assert!(origin(wrong).unwrap_err().starts_with("give an origin"), "{wrong}");
        }
    }
}
