//! The known answers of a drill: what each rung gives for each text when it serves alone and
//! undisturbed. Answers are compared by their bits, so a rung whose bits depend on the batch is
//! refused.

use std::hash::{DefaultHasher, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use forebay::config::{Device, Fallback, Rungs};
use forebay::{Config, EmbedOptions, Embedding, Runtime};

use crate::failure::{Exit, Failure};
use crate::out::note;
use crate::service::at;

/// First line of a file of answers.
const HEADER: &str = "forebay-answers,1";

/// What each text's answer may be.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    /// By text: the rungs with the digest of their vector.
    texts: Vec<Vec<(Device, u64)>>,
}

/// A digest of a vector's bits.
pub(super) fn digest(vector: &[f32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    vector.iter().for_each(|value| hasher.write_u32(value.to_bits()));
    hasher.finish()
}

impl Answers {
    /// Asks a runtime on each device alone. A device that does not serve has no answers.
    ///
    /// # Errors
    /// No device serves; a text has no embedding; a device's answers depend on the batch.
    pub(super) async fn compute(
        config: &Config,
        devices: &[Device],
        texts: &[String],
    ) -> Result<Self, Failure> {
        let mut answers = Self { texts: vec![Vec::new(); texts.len()] };
        for device in devices {
            let mut config = config.clone();
            config.devices.rungs = Rungs::Listed(vec![*device]);
            config.devices.fallback = Fallback::None;
            // The drilled runtime writes there.
            config.events.folder = PathBuf::new();
            let runtime = match Runtime::start(config).await {
                Ok(runtime) => runtime,
                Err(error) => {
                    note!("{device} has no answers: {error}");
                    continue;
                }
            };
            let digests = of_runtime(&runtime, *device, texts).await;
            runtime.shutdown().await;
            for (known, digest) in answers.texts.iter_mut().zip(digests?) {
                known.push((*device, digest));
            }
        }
        if answers.texts.iter().any(Vec::is_empty) {
            return Err(Failure::new(Exit::Unavailable, "no device serves that could be drilled")
                .help("`forebay doctor` looks at everything that is needed"));
        }
        Ok(answers)
    }

    /// Whether a rung gives this for the text.
    pub(super) fn is_known(&self, text: u32, digest: u64) -> bool {
        let known = self.texts.get(text as usize);
        known.is_some_and(|known| known.iter().any(|(_, answer)| *answer == digest))
    }

    /// Writes all of them for a checker.
    ///
    /// # Errors
    /// The file cannot be created or written.
    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        let file = std::fs::File::create(path).map_err(|e| Failure::creating(path, &e))?;
        let mut file = std::io::BufWriter::new(file);
        let mut write = || {
            writeln!(file, "{HEADER}")?;
            for (text, known) in self.texts.iter().enumerate() {
                for (device, digest) in known {
                    writeln!(file, "{text},{device},{digest:016x}")?;
                }
            }
            file.flush()
        };
        write().map_err(|error| Failure::writing(path.display(), &error))
    }

    #[cfg(test)]
    pub(super) fn of(texts: Vec<Vec<(Device, u64)>>) -> Self {
        Self { texts }
    }
}

/// The digest of each text: together in large batches, and each once more alone.
async fn of_runtime(
    runtime: &Runtime,
    device: Device,
    texts: &[String],
) -> Result<Vec<u64>, Failure> {
    let results = runtime.embed_batch(texts.to_vec(), &EmbedOptions::bulk()).await?;
    let mut digests = Vec::with_capacity(texts.len());
    for ((result, text), number) in results.into_iter().zip(texts).zip(1_u64..) {
        let failed = |error: forebay::EmbedError| at("text", number, error.into());
        let together = of(&result.map_err(failed)?);
        let alone = runtime.embed(text.clone(), &EmbedOptions::default()).await;
        if together != of(&alone.map_err(failed)?) {
            let message = format!(
                "answers of {device} depend on the batch, the first is text {number}: they cannot be \
                 compared by their bits"
            );
            let help = "on a GPU where Forebay's own products fit, set cuda.gemm to \"native\"";
            return Err(Failure::new(Exit::Failed, message).help(help));
        }
        digests.push(together);
    }
    Ok(digests)
}

fn of(embedding: &Embedding) -> u64 {
    digest(&embedding.vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bit_changes_the_digest_and_answers_belong_to_their_text() {
        let vector = [0.1_f32, -0.2, 0.3];
        let mut flipped = vector;
        flipped[1] = f32::from_bits(flipped[1].to_bits() ^ 1);
        assert_ne!(digest(&vector), digest(&flipped));
        assert_ne!(digest(&[0.0]), digest(&[-0.0]));
        let both = vec![(Device::Cuda(0), 7), (Device::Cpu, 8)];
        let answers = Answers::of(vec![both, vec![(Device::Cpu, 9)]]);
        assert!(answers.is_known(0, 7) && answers.is_known(0, 8) && answers.is_known(1, 9));
        assert!(!answers.is_known(1, 7) && !answers.is_known(0, 9) && !answers.is_known(2, 7));
    }

    #[test]
    fn the_file_has_a_line_for_each_rung_and_text() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("answers.csv");
        let both = vec![(Device::Cuda(1), 0xab), (Device::Cpu, 8)];
        Answers::of(vec![both]).write(&path).unwrap_or_else(|failure| panic!("{failure:?}"));
        let text = std::fs::read_to_string(path).expect("reads");
        assert_eq!(text, "forebay-answers,1\n0,cuda:1,00000000000000ab\n0,cpu,0000000000000008\n");
    }
}
