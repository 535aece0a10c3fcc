//! Studies from end to end on a recipe small enough for a test: 8 images, three runs of six steps.
#![allow(clippy::unwrap_used, clippy::panic)]

mod ablate;
mod accumulate;
mod bench;
mod detector;
mod features;
mod folder;
mod input;
mod report;
mod resume;
mod stop;
mod teacher;
mod teacher_cache;
mod teacher_context;
mod training;
mod writer;
