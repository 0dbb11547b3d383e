//! Which GPU a worker's process may see: environment variables that CUDA reads when it starts.
//!
//! Each GPU worker sees its own device only, so that nothing it does can touch another. The numbers
//! in `cuda:N` count the devices that this process would see: in the order of the PCI bus, or the
//! entries of `CUDA_VISIBLE_DEVICES` where that is set, as containers and batch systems do.

const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
const ORDER: &str = "CUDA_DEVICE_ORDER";

/// The order of the PCI bus, which stays the same; by default CUDA puts the fastest first.
const PCI_BUS_ID: &str = "PCI_BUS_ID";

/// Variables for a child process.
pub(crate) type Environment = Vec<(&'static str, String)>;

/// What the environment of this process says about devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Visibility {
    visible: Option<String>,
    order: Option<String>,
}

impl Visibility {
    /// What the environment of this process says. Bytes that are not UTF-8 name no device.
    pub(crate) fn of_this_process() -> Self {
        let read = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Self { visible: read(VISIBLE), order: read(ORDER) }
    }

    /// Shows a child what this process would see, in a fixed order.
    pub(crate) fn all(&self) -> Environment {
        match (&self.visible, &self.order) {
            // The numbers of a list count in the order that its author had in mind.
            (Some(_), _) | (None, Some(_)) => Vec::new(),
            (None, None) => vec![(ORDER, PCI_BUS_ID.to_owned())],
        }
    }

    /// Shows a child device `index` and nothing else. The text of an error says why there is no
    /// such device.
    pub(crate) fn only(&self, index: u32) -> Result<Environment, String> {
        let Some(entry) = self.entry(index)? else {
            let mut environment = self.all();
            environment.push((VISIBLE, index.to_string()));
            return Ok(environment);
        };
        Ok(vec![(VISIBLE, entry.to_owned())])
    }

    /// Entry `index` of the list of devices; `None` if there is no list. The text of an error says
    /// why there is no such entry.
    pub(crate) fn entry(&self, index: u32) -> Result<Option<&str>, String> {
        let Some(visible) = &self.visible else { return Ok(None) };
        // CUDA, too, stops at the first entry that names nothing.
        let entries = visible.split(',').map(str::trim);
        let mut entries = entries.take_while(|entry| !entry.is_empty() && *entry != "-1");
        match entries.nth(index as usize) {
            Some(entry) => Ok(Some(entry)),
            None => Err(format!("{VISIBLE} is \"{visible}\"")),
        }
    }

    /// Whether numbers count in the order of the PCI bus: in a list that has no order of its own,
    /// CUDA's default counts.
    pub(crate) fn counts_by_bus(&self) -> bool {
        match (&self.visible, &self.order) {
            (_, Some(order)) => order == PCI_BUS_ID,
            (visible, None) => visible.is_none(),
        }
    }

    /// An environment that says this.
    #[cfg(test)]
    pub(crate) fn new(visible: Option<&str>, order: Option<&str>) -> Self {
        Self { visible: visible.map(str::to_owned), order: order.map(str::to_owned) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(environment: &Environment) -> Vec<(&str, &str)> {
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    #[test]
    fn without_a_list_devices_count_by_bus() {
        let free = Visibility::new(None, None);
        assert_eq!(shown(&free.all()), [(ORDER, PCI_BUS_ID)]);
        let third = free.only(3).expect("shown");
        assert_eq!(shown(&third), [(ORDER, PCI_BUS_ID), (VISIBLE, "3")]);
        let ordered = Visibility::new(None, Some("FASTEST_FIRST"));
        assert_eq!(shown(&ordered.only(0).expect("shown")), [(VISIBLE, "0")]);
    }

    #[test]
    fn a_list_is_counted_through_and_its_order_left_alone() {
        let listed = Visibility::new(Some("2, GPU-1a2b,0"), None);
        assert!(listed.all().is_empty());
        for (index, entry) in [(0, "2"), (1, "GPU-1a2b"), (2, "0")] {
            assert_eq!(shown(&listed.only(index).expect("shown")), [(VISIBLE, entry)]);
        }
        let error = listed.only(3).expect_err("three only");
        assert!(error.contains("2, GPU-1a2b,0"), "{error}");
    }

    #[test]
    fn a_list_ends_where_it_names_nothing() {
        for (list, devices) in [("", 0), ("-1", 0), ("1,-1,0", 1), ("1,,0", 1)] {
            let listed = Visibility::new(Some(list), None);
            let seen = (0..4).filter(|index| listed.only(*index).is_ok()).count();
            assert_eq!(seen, devices, "{list:?}");
        }
    }
}
