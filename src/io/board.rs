//! What the machine says that it is.

use std::fs;
use std::path::Path;

/// Where Linux shows the name that the firmware gives the board: the usual place, and one that is there
/// also where a sandbox hides the rest of `/proc`.
const MODEL_FILES: [&str; 2] = [
    "/proc/device-tree/model",
    "/sys/firmware/devicetree/base/model",
];

/// The longest name that is believed, in bytes; those of Raspberry Pis have 40.
const MODEL_BYTES_MAX: usize = 100;

/// The board's own name, such as `Raspberry Pi 4 Model B Rev 1.5`; `None` on a machine that has no device
/// tree, such as a PC.
pub fn model() -> Option<String> {
    MODEL_FILES
        .iter()
        .find_map(|file| model_in(Path::new(file)))
}

fn model_in(file: &Path) -> Option<String> {
    let bytes = fs::read(file).ok()?;
    // A text of the device tree ends with a zero. Nothing else of it may end a line of the log.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MODEL_BYTES_MAX)]);
    let model: String = text.chars().filter(|char| !char.is_control()).collect();
    (!model.is_empty()).then_some(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_the_board_is_read_without_what_is_around_it() {
        let name = format!("edgepush-model-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        let read = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            model_in(&file)
        };
        let model = read(b"Raspberry Pi 4 Model B Rev 1.5\0");
        assert_eq!(model.as_deref(), Some("Raspberry Pi 4 Model B Rev 1.5"));
        assert_eq!(read(b"a\nb\x1b[2J\0").as_deref(), Some("ab[2J"));
        assert_eq!(read(&[b'x'; 5000]).map(|model| model.len()), Some(100));
        assert_eq!(read(b"\0"), None);
        fs::remove_file(&file).unwrap();
        assert_eq!(model_in(&file), None);
    }
}
