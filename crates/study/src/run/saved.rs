//! What a run leaves between two steps, and how it is taken up.

use std::path::Path;

use docent_model::{files, read_safetensors, save_checkpoint};
use docent_train::events::{Event, EventSink};

use super::Run;
use super::folder::hash;
use super::state::RunState;
use crate::error::{Error, Result};

impl Run<'_> {
    /// Writes the state, then the weights that others read. The state alone is what a resume believes. `epoch` counts the epochs
    /// that are finished, their evaluation included.
    pub(super) fn save(&self, epoch: usize, sink: &mut dyn EventSink) -> Result<()> {
        let state = RunState {
            trainer: self.trainer.state()?,
            epoch,
            seconds: self.seconds,
            seed: self.plan.recipe.seed,
            recipe_digest: self.recipe_digest.clone(),
            best: self.best,
            patience: self.patience,
        };
        let (path, step) = (self.folder.state(), state.trainer.step);
        // A state whose steps the log lacks would go on with a hole in it.
        sink.sync()?;
        self.finite(state.save(&path, Some(&self.folder.previous_state())))?;
        save_checkpoint(&self.folder.last(), &self.trainer.reported(&state.trainer), &self.meta()?)?;
        Ok(sink.event(&Event::Checkpoint { path, step })?)
    }

    /// Takes over the state file, if there is one.
    pub(super) fn restore(&mut self) -> Result<()> {
        let path = self.folder.state();
        let Some(state) = self.load_state(&path)? else { return Ok(()) };
        if state.recipe_digest != self.recipe_digest {
            return Err(Error::file(
                &path,
                "was written under another recipe or seed; resume with the old settings, or choose another --out",
            ));
        }
        let mine = &self.plan.manifest;
        let before = self.folder.check_inputs(&mine.data, mine.teacher.as_ref())?;
        self.folder.same("other first weights", hash(before.init.as_ref()), hash(mine.init.as_ref()))?;
        let (step, epoch, epoch_steps) = (state.trainer.step, state.epoch, self.steps_per_epoch);
        let fits = epoch < self.plan.epochs && (epoch * epoch_steps..=(epoch + 1) * epoch_steps).contains(&step);
        if !fits {
            let what =
                format!("step {step} after {epoch} epochs is no place in this run of {epoch_steps} steps an epoch");
            return Err(Error::file(&path, what));
        }
        self.trainer.load_state(&state.trainer)?;
        self.seconds = state.seconds;
        self.best = state.best;
        self.patience = state.patience;
        self.epochs_done = epoch;
        Ok(())
    }

    /// The newest state that can be read. One that cannot is put aside, and the one before it taken; where it is a run's first, the
    /// run begins again.
    fn load_state(&mut self, path: &Path) -> Result<Option<RunState>> {
        let previous = self.folder.previous_state();
        let before = files::exists(&previous)?;
        if !files::exists(path)? {
            if !before {
                return Ok(None);
            }
            self.warnings.push(format!("{} is not there; going on from the state before it", path.display()));
            return RunState::load(&previous).map(Some).map_err(|e| self.none_left(e));
        }
        let fault = match RunState::load(path) {
            Ok(state) => return Ok(Some(state)),
            // A disk that does not answer says nothing about the file.
            Err(fault) if fault.is_io() => return Err(fault),
            Err(fault) => fault,
        };
        let state = match before.then(|| RunState::load(&previous)).transpose() {
            // A file without damage is another build's: what to do with it is not ours to say.
            Ok(None) if read_safetensors(path).is_ok() => return Err(fault),
            Ok(state) => state,
            // Where neither can be read, the newest one's fault is what a person can do something about.
            Err(_) => return Err(self.none_left(fault)),
        };
        let aside = path.with_file_name("damaged.state.safetensors");
        std::fs::rename(path, &aside).map_err(|e| Error::io(path, e))?;
        let instead = match &state {
            Some(state) => format!("going on from the state before it, after step {}", state.trainer.step),
            None => "there is none before it, so the run begins again".to_owned(),
        };
        self.warnings.push(format!("{fault}. It is kept as {}; {instead}", aside.display()));
        Ok(state)
    }

    /// What to do where no state can be read.
    fn none_left(&self, fault: Error) -> Error {
        let run = self.folder.path().display();
        let what = format!(
            "{fault}. There is no other state: move {run} away, and --resume makes this run from its beginning"
        );
        if fault.is_io() { fault } else { Error::file(self.folder.path(), what) }
    }
}
