//! What becomes of each datagram: when it is delivered, how often, or never. No socket and no clock; the same
//! datagrams at the same moments meet the same fate.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::draws::Draws;
use crate::error::RigError;

/// The weather on a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// What every datagram takes.
    pub delay_us: u64,
    /// What it takes more, at most. By itself it changes no order.
    pub jitter_us: u64,
    /// Datagrams lost, of a thousand.
    pub loss: u64,
    /// Datagrams that later ones overtake, of a thousand.
    pub reorder: u64,
    /// Datagrams delivered twice, of a thousand.
    pub duplicate: u64,
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delay_us, jitter_us, loss, reorder, duplicate } = self;
        write!(f, "delay={delay_us} jitter={jitter_us} loss={loss} reorder={reorder} duplicate={duplicate}")
    }
}

impl FromStr for Weather {
    type Err = RigError;

    fn from_str(text: &str) -> Result<Self, RigError> {
        let mut weather = Self::default();
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=').ok_or_else(|| RigError::line(text))?;
            let value = value.parse().map_err(|_| RigError::line(text))?;
            match name {
                "delay" => weather.delay_us = value,
                "jitter" => weather.jitter_us = value,
                "loss" => weather.loss = value,
                "reorder" => weather.reorder = value,
                "duplicate" => weather.duplicate = value,
                _ => return Err(RigError::line(text)),
            }
        }
        Ok(weather)
    }
}

/// What a line tells the shaper to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From now on, on every link.
    Weather(Weather),
    /// Nothing passes from the first node to the second any more.
    Cut(usize, usize),
    /// Everything passes again from the first node to the second.
    Mend(usize, usize),
    /// Every cut is mended; the weather stays.
    Heal,
    /// Say what was done so far.
    Count,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weather(weather) => write!(f, "weather {weather}"),
            Self::Cut(from, to) => write!(f, "cut {from} {to}"),
            Self::Mend(from, to) => write!(f, "mend {from} {to}"),
            Self::Heal => f.write_str("heal"),
            Self::Count => f.write_str("count"),
        }
    }
}

impl FromStr for Order {
    type Err = RigError;

    fn from_str(line: &str) -> Result<Self, RigError> {
        let (verb, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let link = || {
            let (from, to) = rest.split_once(' ')?;
            Some((from.parse().ok()?, to.parse().ok()?))
        };
        match verb {
            "weather" => Ok(Self::Weather(rest.parse()?)),
            "cut" => link().map(|(from, to)| Self::Cut(from, to)).ok_or_else(|| RigError::line(line)),
            "mend" => link().map(|(from, to)| Self::Mend(from, to)).ok_or_else(|| RigError::line(line)),
            "heal" => Ok(Self::Heal),
            "count" => Ok(Self::Count),
            _ => Err(RigError::line(line)),
        }
    }
}

/// What was done with datagrams so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Delivered, copies not counted.
    pub forwarded: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost because the link was cut.
    pub cut: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Held back, so that later ones overtake them.
    pub reordered: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { forwarded, lost, cut, duplicated, reordered } = self;
        write!(
            f,
            "{forwarded} forwarded, {lost} lost, {cut} cut, {duplicated} duplicated, {reordered} reordered"
        )
    }
}

struct Link {
    draws: Draws,
    is_cut: bool,
    /// When the last datagram that kept its place is delivered.
    last: Duration,
}

/// The fate of datagrams on every link, by the seed.
pub struct Shaper {
    seed: u64,
    weather: Weather,
    links: BTreeMap<(usize, usize), Link>,
    tally: Tally,
}

impl Shaper {
    /// Good weather everywhere.
    pub fn new(seed: u64) -> Self {
        Self { seed, weather: Weather::default(), links: BTreeMap::new(), tally: Tally::default() }
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        let purpose = (from as u64) << 32 | to as u64;
        let seed = self.seed;
        self.links.entry((from, to)).or_insert_with(|| Link {
            draws: Draws::new(seed, purpose),
            is_cut: false,
            last: Duration::ZERO,
        })
    }

    /// Carries out an order.
    pub fn apply(&mut self, order: Order) {
        match order {
            Order::Weather(weather) => self.weather = weather,
            Order::Cut(from, to) => self.link(from, to).is_cut = true,
            Order::Mend(from, to) => self.link(from, to).is_cut = false,
            Order::Heal => self.links.values_mut().for_each(|link| link.is_cut = false),
            Order::Count => {}
        }
    }

    /// What was done so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// When a datagram that came in at `now` is delivered; twice when it is duplicated, never when it is lost.
    /// Each link draws the same numbers for each datagram, whatever the weather.
    pub fn handle(&mut self, now: Duration, from: usize, to: usize) -> Vec<Duration> {
        let weather = self.weather;
        let link = self.link(from, to);
        let is_cut = link.is_cut;
        let (lost, held) = (link.draws.permille(weather.loss), link.draws.permille(weather.reorder));
        let twice = link.draws.permille(weather.duplicate);
        let [jitter, behind, again] =
            [0, 1, 2].map(|_| Duration::from_micros(link.draws.below(weather.jitter_us + 1)));
        if is_cut {
            self.tally.cut += 1;
            return Vec::new();
        }
        if lost {
            self.tally.lost += 1;
            return Vec::new();
        }
        let delay = Duration::from_micros(weather.delay_us);
        let kept = (now + delay + jitter).max(link.last);
        // What is held back comes after datagrams that have not even been sent yet.
        let due = if held { kept + delay + behind + HELD_BACK_MIN } else { kept };
        if !held {
            link.last = kept;
        }
        let mut deliveries = vec![due];
        if twice {
            deliveries.push(due + again);
        }
        self.tally.forwarded += 1;
        self.tally.reordered += u64::from(held);
        self.tally.duplicated += u64::from(twice);
        deliveries
    }
}

/// What a datagram is held back for at least, so that others can overtake it in calm weather too.
const HELD_BACK_MIN: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    const ROUGH: Weather =
        Weather { delay_us: 20_000, jitter_us: 30_000, loss: 100, reorder: 100, duplicate: 100 };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn fates(seed: u64, weather: Weather, count: u64) -> (Vec<Vec<Duration>>, Tally) {
        let mut shaper = Shaper::new(seed);
        shaper.apply(Order::Weather(weather));
        let fates = (0..count).map(|at| shaper.handle(ms(at), 0, 1)).collect();
        (fates, shaper.tally())
    }

    #[test]
    fn a_seed_repeats_the_fate_of_every_datagram() {
        assert_eq!(fates(3, ROUGH, 500), fates(3, ROUGH, 500));
        assert_ne!(fates(3, ROUGH, 500), fates(4, ROUGH, 500));
    }

    #[test]
    fn a_link_does_not_depend_on_what_happens_on_another() {
        let mut shaper = Shaper::new(3);
        shaper.apply(Order::Weather(ROUGH));
        let mixed: Vec<_> = (0..500)
            .map(|at| {
                shaper.handle(ms(at), 1, 0);
                shaper.handle(ms(at), 0, 1)
            })
            .collect();
        assert_eq!(mixed, fates(3, ROUGH, 500).0);
    }

    #[test]
    fn rates_are_about_what_was_asked_for() {
        let (_, tally) = fates(1, ROUGH, 20_000);
        let about = |count: u64, of: u64| (of * 8 / 100..=of * 12 / 100).contains(&count);
        assert_eq!(tally.forwarded + tally.lost, 20_000);
        assert!(about(tally.lost, 20_000), "{tally}");
        assert!(about(tally.duplicated, tally.forwarded), "{tally}");
        assert!(about(tally.reordered, tally.forwarded), "{tally}");
    }

    #[test]
    fn jitter_alone_changes_no_order() {
        let weather = Weather { delay_us: 1_000, jitter_us: 50_000, ..Weather::default() };
        let (fates, _) = fates(1, weather, 1_000);
        assert!(fates.is_sorted());
        assert!(fates.iter().enumerate().all(|(at, due)| due[0] >= ms(at as u64 + 1)));
    }

    #[test]
    fn what_is_held_back_is_overtaken() {
        let weather = Weather { delay_us: 1_000, reorder: 100, ..Weather::default() };
        let (fates, tally) = fates(1, weather, 1_000);
        let overtaken = fates.iter().zip(&fates[1..]).filter(|(one, next)| one[0] > next[0]).count();
        assert!(overtaken as u64 > tally.reordered / 2, "{overtaken} of {tally}");
    }

    #[test]
    fn a_cut_is_one_way_and_heals() {
        let mut shaper = Shaper::new(1);
        shaper.apply(Order::Cut(0, 1));
        assert_eq!(shaper.handle(ms(0), 0, 1), []);
        assert_eq!(shaper.handle(ms(0), 1, 0), [ms(0)]);
        shaper.apply(Order::Heal);
        assert_eq!(shaper.handle(ms(1), 0, 1), [ms(1)]);
        assert_eq!(shaper.tally(), Tally { forwarded: 2, cut: 1, ..Tally::default() });
    }

    #[test]
    fn orders_survive_being_written_as_lines() {
        let orders = [Order::Weather(ROUGH), Order::Cut(1, 2), Order::Mend(2, 1), Order::Heal, Order::Count];
        for order in orders {
            assert_eq!(order.to_string().parse::<Order>().unwrap(), order);
        }
        assert!("cut 1".parse::<Order>().is_err());
        assert!("weather loss=x".parse::<Order>().is_err());
    }
}
