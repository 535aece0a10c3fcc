//! Studies from end to end on a recipe small enough for a test: 8 images, three runs of six steps.
#![allow(clippy::unwrap_used)]

mod ablate;
mod accumulate;
mod bench;
mod detector;
mod features;
mod folder;
mod input;
mod lesson;
mod report;
mod resume;
mod stop;
mod teacher;
mod training;
mod writer;
