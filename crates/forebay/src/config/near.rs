//! What is said about a name that is not known, with the name that was probably meant.

use super::GROUPS;
use super::check::shown;
use super::declare::Group;

/// A key that `group` does not have.
pub(super) fn unknown_key(group: &Group, written: &str) -> String {
    let names = || group.keys.iter().map(|key| key.name);
    let full = format!("{}.{}", group.name, shown(written));
    if let Some(near) = nearest(written, names()) {
        return format!("unknown key `{full}`; did you mean `{}.{near}`?", group.name);
    }
    if let Some(moved) = owned(written) {
        return format!("unknown key `{full}`; did you mean {moved}?");
    }
    format!("unknown key `{full}`; [{}] has {}", group.name, names().collect::<Vec<_>>().join(", "))
}

/// A table that is no group.
pub(super) fn unknown_group(written: &str) -> String {
    let names = || GROUPS.into_iter().map(|group| group.name);
    match nearest(written, names()) {
        Some(near) => format!("unknown group [{}]; did you mean [{near}]?", shown(written)),
        None => format!(
            "unknown group [{}]; there are {}",
            shown(written),
            names().collect::<Vec<_>>().join(", ")
        ),
    }
}

/// A name before the first table that is no group.
pub(super) fn unknown_at_top(written: &str, is_table: bool) -> String {
    if is_table {
        return unknown_group(written);
    }
    match owned(written) {
        Some(owned) => {
            format!("`{written}` stands outside of its group; did you mean {owned}?")
        }
        None => format!("unknown key `{}` outside of any group", shown(written)),
    }
}

/// Every key of this name with its group, as a choice in words.
fn owned(name: &str) -> Option<String> {
    let owners = GROUPS.into_iter().filter(|group| group.keys.iter().any(|key| key.name == name));
    let keys: Vec<String> = owners.map(|group| format!("`{}.{name}`", group.name)).collect();
    (!keys.is_empty()).then(|| keys.join(" or "))
}

/// The candidate with the fewest edits from `written` (swapped neighbours are one), if few enough
/// to be a slip of the hand: one edit for every three characters, at least one.
fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer than any name can be meant; also keeps the quadratic comparison small.
    if written.len() > 64 {
        return None;
    }
    let edits_max = (written.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(written, candidate), candidate))
        .filter(|(edits, _)| *edits <= edits_max)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_close_names_are_offered() {
        let names = ["tokens_max", "tokens_min", "rows_max"];
        assert_eq!(nearest("token_max", names), Some("tokens_max"));
        assert_eq!(nearest("row_max", names), Some("rows_max"));
        assert_eq!(nearest("rwos_max", names), Some("rows_max"));
        assert_eq!(nearest("colour", names), None);
        assert_eq!(nearest(&"x".repeat(10_000), names), None);
    }
}
