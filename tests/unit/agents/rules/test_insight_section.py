"""The section ``insight`` of rule files: what it takes, what it says of mistakes, and where it is in a plan."""

import pytest

from astrocyte.agents.engine.engine import Engine
from astrocyte.agents.insight import Diversity, Forecast, Selection, Target, Trends, Windows
from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.model import InvalidRules, RuleSet
from astrocyte.pipeline.topology.plan import make_plan
from astrocyte.schemas.catalog import CATALOG
from tests.support.evolution import evolution_log, frames_of

STREAMS = {event_type.stream for event_type in CATALOG}


def spec_of(text):
    (spec,) = load_rules(f"insight: [{{{text}}}]", known_streams=STREAMS).insight
    return spec


def test_an_entry_is_the_statistic_with_its_settings_and_the_defaults_of_the_others():
    spec = spec_of("statistic: selection, size: 2s, follow: 500ms, traits: [metabolism]")
    assert spec.name == "selection"
    assert spec.built == Selection(windows=Windows(2_000_000), follow_us=500_000, traits=("metabolism",))
    spec = spec_of(
        "name: outlook, statistic: forecast, size: 2s, every: 1s, horizons: [1s], "
        "targets: [{field: total_population, limit: 5}]"
    )
    assert spec.built.windows == Windows(2_000_000, 1_000_000)
    assert spec.built.targets == (Target("total_population", "log", 5.0),)
    assert spec.built.result.stream == "outlook"
    assert spec.built.result.types == Forecast(windows=Windows(1), horizons_us=(1,)).result.types
    spec = spec_of(
        "statistic: diversity, size: 1s, traits: [mass], stream: cell_vitals, bounds: {mass: [0, 9]}, bins: 4"
    )
    wanted = {"traits": ("mass",), "stream": "cell_vitals", "bounds": {"mass": (0.0, 9.0)}, "bins": 4}
    assert spec.built == Diversity(windows=Windows(1_000_000), **wanted)
    spec = spec_of("statistic: trends, size: 60s, interval: 1s, series: [{stream: genome_data, field: metabolism}]")
    assert isinstance(spec.built, Trends)
    assert spec.built.series == (("genome_data", "metabolism"),)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("statistic: selektion, size: 1s", "no statistic 'selektion'; expected .* did you mean 'selection'"),
        ("size: 1s", "statistic: is missing; name one of selection"),
        ("statistic: price", "size: is missing"),
        ("statistic: selection, size: 1s, trait: [metabolism]", "unknown field 'trait'; did you mean 'traits'"),
        ("statistic: selection, size: 1s, traits: [metabolizm]", "no field 'metabolizm'; did you mean 'metabolism'"),
        ("statistic: forecast, size: 1s, horizons: [1s], stream: population_metrix", "mean 'population_metrics'"),
        ("statistic: selection, size: 1s, individual: genome_type", "genome_type.* is string; .* whole number"),
        ("statistic: selection, size: 1s, follow: 2s", "follow 2000000; expected more than 0 and less than the window"),
        ("statistic: price, size: 2s, every: 1s", "follows individuals from window to window: leave the step out"),
        ("statistic: forecast, size: 1s, every: 2s, horizons: [1s]", "every is longer than size"),
        ("statistic: early_warning, size: 1s, level: 2", "level: expected a value less than 1, got 2"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place_and_what_was_meant(entry, message):
    with pytest.raises(InvalidRules, match=message) as caught:
        load_rules(f"insight:\n  - {{{entry}}}\n", known_streams=STREAMS)
    assert all(problem.line == 2 and problem.kind == "statistic" for problem in caught.value.problems)


def test_a_field_that_results_do_not_have_is_named_where_a_rule_reads_it():
    with pytest.raises(InvalidRules, match="stream selection has no field 'bata'; did you mean 'beta'"):
        load_rules(
            "insight: [{statistic: selection, size: 1s}]\n"
            "rules: [{name: r, any: [{as: s, stream: selection, where: 'bata > 1'}]}]"
        )


def test_statistics_and_rules_in_a_circle_are_refused():
    with pytest.raises(InvalidRules, match="circle: outlook -> r -> outlook"):
        load_rules(
            "insight: [{name: outlook, statistic: forecast, size: 1s, horizons: [1s], stream: r, "
            "targets: [{field: value}]}]\n"
            "rules: [{name: r, any: [{as: s, stream: outlook}], emit: {value: 's.value'}}]"
        )


def test_one_name_is_given_once():
    with pytest.raises(InvalidRules, match="'price' is given to two"):
        load_rules("insight: [{statistic: price, size: 1s}, {statistic: price, size: 2s}]")


def test_a_rule_set_with_statistics_survives_its_json():
    ruleset = RuleSet(insight=(spec_of("statistic: trends, size: 60s, interval: 1s"),))
    assert RuleSet.model_validate_json(ruleset.model_dump_json()) == ruleset


def test_the_plan_copies_what_statistics_read_by_run_for_a_group_of_their_own():
    ruleset = load_rules(
        "insight: [{statistic: price, size: 1s}, {statistic: forecast, size: 1s, horizons: [1s], stream: second, "
        "targets: [{field: mean}]}]\n"
        "windows: [{name: second, from: population_metrics, by: simulation_id, every: 1s, "
        "select: {mean: 'mean(avg_energy)'}}]\n"
        "rules: [{name: r, by: simulation_id, any: [{as: p, stream: price}]}]"
    )
    plan = make_plan(ruleset)
    (insight,) = plan.part("insight").groups
    assert insight.topics == {
        "evolutionary_events": "keyed.simulation_id.evolutionary_events", "second": "metrics.second"
    }  # fmt: skip
    (rules,) = plan.part("correlate").groups
    assert rules.topics["price"] == "metrics.price"
    assert plan.inputs == ("mono.evolutionary_events", "mono.population_metrics")


def test_an_engine_computes_statistics_and_restarts_between_any_two_frames():
    ruleset = load_rules(
        "insight: [{statistic: diversity, size: 300us, traits: [metabolism]}, "
        "{statistic: selection, size: 400us, traits: [metabolism]}]\n"
        "rules: [{name: r, any: [{as: d, stream: diversity, where: 'hill_1 > 2'}], emit: {n: 'd.individuals'}}]"
    )
    frames = list(frames_of(sorted(evolution_log(ticks=500), key=lambda row: (row[2]["timestamp"] // 100, row[:2]))))

    def outputs(*, restart):
        engine = Engine(ruleset, validated=True)
        rows, matches = [], 0
        for frame in frames:
            engine.push(frame)
            steps = [engine.advance(int(frame.timestamps().min()) // 100 * 100)]
            if restart:
                saved, engine = engine.snapshot(), Engine(ruleset, validated=True)
                engine.restore(saved)
            for output in steps:
                rows += [row for made in output.frames for row in made.rows()]
                matches += len(output.matches)
        last = engine.flush()
        return rows + [row for made in last.frames for row in made.rows()], matches + len(last.matches)

    assert outputs(restart=True) == outputs(restart=False)
