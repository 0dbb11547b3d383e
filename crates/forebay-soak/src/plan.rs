//! What each request is: its texts and its class, from the seed and its number alone. So a number
//! from a history says what was sent.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::profile::Class;

/// What the requests of a run are made from.
#[derive(Clone, Debug)]
pub struct Plan {
    seed: u64,
    /// Texts that there are.
    texts: u32,
    /// Texts of one request.
    count: u32,
    classes: Vec<Class>,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Planned {
    /// Its number.
    pub number: u64,
    /// Its first text.
    pub first: u32,
    /// Its texts: this many from the first on.
    pub count: u32,
    /// Its class.
    pub class: Class,
}

impl Plan {
    /// Requests of `count` texts each, of the classes given. There must be a class, and as many texts
    /// as a request has.
    #[must_use]
    pub fn new(seed: u64, texts: u32, count: u32, classes: Vec<Class>) -> Self {
        Self { seed, texts, count, classes }
    }

    /// A request by its number.
    #[must_use]
    pub fn request(&self, number: u64) -> Planned {
        // Neighbouring numbers must not give related random numbers.
        let mut random = SmallRng::seed_from_u64(
            self.seed.rotate_left(32) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
        let blocks = (self.texts / self.count.max(1)).max(1);
        let first = random.random_range(0..blocks) * self.count;
        let total: f64 = self.classes.iter().map(|class| class.share).sum();
        let mut place = random.random::<f64>() * total;
        let class = self.classes.iter().find(|class| {
            place -= class.share;
            place < 0.0
        });
        let class = class.or(self.classes.last()).copied();
        let usual = Class { priority: forebay::Priority::Interactive, share: 1.0, deadline_ms: 0 };
        Planned { number, first, count: self.count, class: class.unwrap_or(usual) }
    }
}

#[cfg(test)]
mod tests {
    use forebay::Priority;

    use super::*;

    #[test]
    fn requests_follow_from_seed_and_number_and_classes_have_their_shares() {
        let class = |priority, share| Class { priority, share, deadline_ms: 0 };
        let classes = vec![class(Priority::Control, 1.0), class(Priority::Bulk, 3.0)];
        let plan = Plan::new(5, 100, 8, classes.clone());
        let requests: Vec<Planned> = (0..4000).map(|number| plan.request(number)).collect();
        assert_eq!(requests[17], plan.request(17));
        let other = Plan::new(6, 100, 8, classes);
        assert!((0..20).any(|number| other.request(number) != plan.request(number)));
        assert!(requests.iter().all(|r| r.first % 8 == 0 && r.first + r.count <= 100));
        let control = requests.iter().filter(|r| r.class.priority == Priority::Control).count();
        assert!((850..1150).contains(&control), "{control}");
        let firsts: std::collections::HashSet<u32> = requests.iter().map(|r| r.first).collect();
        assert_eq!(firsts.len(), 12);
    }
}
