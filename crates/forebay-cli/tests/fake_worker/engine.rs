//! The engine of the fake worker: four steps, one of which reads the script.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use forebay_arena::{ClaimedSlot, WorkerArena};
use forebay_protocol::{ErrorClass, WorkerExit, WorkerSpec};
use forebay_worker::{Engine, EngineInfo, Step, StepError};

use crate::script::{HELD_FILE, HOLD_FILE, PIDS_FILE, Script, Start};
use crate::vector;

static SCRIPT: OnceLock<Script> = OnceLock::new();

/// Sets the script that [`open`] will follow.
pub(crate) fn use_script(script: Script) {
    SCRIPT.set(script).expect("the script is set once");
}

/// Appends this process's id to the list in the model folder.
pub(crate) fn note_pid(model: &Path) {
    let file = OpenOptions::new().append(true).create(true).open(model.join(PIDS_FILE));
    writeln!(file.expect("the model folder can be written to"), "{}", std::process::id())
        .expect("the process id is written");
}

/// Waits for ever.
pub(crate) fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

/// Ends this process as a crash does.
fn die() -> ! {
    // A signal that leaves no core file behind.
    let own = rustix::process::getpid();
    rustix::process::kill_process(own, rustix::process::Signal::KILL).ok();
    hang()
}

pub(crate) fn open(spec: &WorkerSpec, _: &WorkerArena) -> Result<Engine<(), (), ()>, StepError> {
    let script = SCRIPT.get().cloned().unwrap_or_default();
    match script.start {
        Start::Hang => hang(),
        Start::Fail => {
            let message = "the fake worker was told to fail; tell it otherwise".to_owned();
            return Err(StepError::Fatal { exit: WorkerExit::Config, message });
        }
        Start::Ready | Start::Exit => {}
    }
    let info = EngineInfo {
        engine: "fake 1".to_owned(),
        device: spec.device.clone(),
        precision: spec.precision.clone(),
        width: width(&spec.model),
        side_by_side: 1,
        details: std::collections::BTreeMap::new(),
    };
    let copy_in = CopyIn { held: script.hold_copy_in.then(|| spec.model.clone()) };
    let infer = Infer { script: script.clone(), hold: spec.model.join(HOLD_FILE) };
    Ok(Engine {
        info,
        copy_in: Box::new(copy_in),
        infer: vec![Box::new(infer)],
        pool: Box::new(Pool { script }),
        copy_out: Box::new(Pass),
    })
}

/// `hidden_size` of the model folder.
pub(crate) fn width(model: &Path) -> u32 {
    let text = std::fs::read_to_string(model.join("config.json")).expect("config.json is there");
    let config: serde_json::Value = serde_json::from_str(&text).expect("config.json is JSON");
    config["hidden_size"].as_u64().and_then(|width| u32::try_from(width).ok()).expect("a width")
}

/// Writes the rows of a batch as the host expects them.
pub(crate) fn write_rows(slot: &mut ClaimedSlot, spoil: &[u32]) {
    let (ids, boundaries) = (slot.ids().to_vec(), slot.cu_seqlens().to_vec());
    let values = slot.output_mut().len() / (boundaries.len() - 1);
    for (row, bounds) in slot.output_mut().chunks_exact_mut(values).zip(boundaries.windows(2)) {
        let ids = &ids[bounds[0] as usize..bounds[1] as usize];
        let (unit, length) = vector::row(ids, values - 1);
        row[..values - 1].copy_from_slice(&unit);
        row[values - 1] = length;
        if ids.iter().any(|id| spoil.contains(id)) {
            row[0] = f32::NAN;
        }
    }
}

/// Gives every row of a batch the same values.
fn fill_rows(slot: &mut ClaimedSlot) {
    let rows = slot.cu_seqlens().len() - 1;
    let values = slot.output_mut().len() / rows;
    let (mut row, length) = vector::row(&[0], values - 1);
    row.push(length);
    slot.output_mut().chunks_exact_mut(values).for_each(|place| place.copy_from_slice(&row));
}

struct CopyIn {
    /// The model folder, if batches can be held here.
    held: Option<PathBuf>,
}

impl Step<(), ()> for CopyIn {
    fn run(&mut self, _: &mut ClaimedSlot, (): ()) -> Result<(), StepError> {
        let Some(model) = &self.held else { return Ok(()) };
        while model.join(HOLD_FILE).exists() {
            std::fs::write(model.join(HELD_FILE), "").expect("the model folder can be written to");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

struct Pass;

impl Step<(), ()> for Pass {
    fn run(&mut self, _: &mut ClaimedSlot, (): ()) -> Result<(), StepError> {
        Ok(())
    }
}

struct Infer {
    script: Script,
    hold: PathBuf,
}

impl Step<(), ()> for Infer {
    fn run(&mut self, slot: &mut ClaimedSlot, (): ()) -> Result<(), StepError> {
        let has = |wanted: &[u32]| slot.ids().iter().any(|id| wanted.contains(id));
        while self.hold.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.script.delay_us > 0 {
            std::thread::sleep(Duration::from_micros(self.script.delay_us));
        }
        if has(&self.script.die_on) {
            die();
        }
        if has(&self.script.hang_on) {
            hang();
        }
        for (wanted, class) in
            [(&self.script.fail_on, ErrorClass::Retry), (&self.script.refuse_on, ErrorClass::Input)]
        {
            if has(wanted) {
                let message = "the fake worker was told to fail this batch".to_owned();
                return Err(StepError::Batch { class, message });
            }
        }
        Ok(())
    }
}

struct Pool {
    script: Script,
}

impl Step<(), ()> for Pool {
    fn run(&mut self, slot: &mut ClaimedSlot, (): ()) -> Result<(), StepError> {
        if self.script.alike {
            fill_rows(slot);
        } else {
            write_rows(slot, &self.script.nan_on);
        }
        Ok(())
    }
}
