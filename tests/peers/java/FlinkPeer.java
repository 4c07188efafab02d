import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.eventtime.Watermark;
import org.apache.flink.api.common.eventtime.WatermarkGenerator;
import org.apache.flink.api.common.eventtime.WatermarkOutput;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.connector.source.lib.NumberSequenceSource;
import org.apache.flink.cep.CEP;
import org.apache.flink.cep.functions.PatternProcessFunction;
import org.apache.flink.cep.nfa.aftermatch.AfterMatchSkipStrategy;
import org.apache.flink.cep.pattern.Pattern;
import org.apache.flink.cep.pattern.conditions.SimpleCondition;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.MemorySize;
import org.apache.flink.configuration.TaskManagerOptions;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.KeyedStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.co.ProcessJoinFunction;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;

/**
 * Flink in this process (MiniCluster): parallelism 1, objects reused, state on the heap, no checkpoints. A pass is a job;
 * its time begins with the first event.
 */
public final class FlinkPeer extends Peer {
    /** What the functions of a job, of which there is one instance each, read and write. */
    private static Event[] input;

    private static Matches output;

    public static void main(String[] arguments) throws Exception {
        run(arguments, new FlinkPeer());
    }

    @Override
    protected void prepare() throws Exception {
        // A job over one event: the cluster and the operators are loaded.
        pass(new Event[] {new Event(0, 1, 0, 0, 0)}, new Matches());
    }

    @Override
    protected void pass(Event[] events, Matches matches) throws Exception {
        input = events;
        output = matches;
        Configuration configuration = new Configuration();
        if (text("kind").equals("rules")) {
            // Each rule is a task, and has buffers of its own.
            configuration.set(TaskManagerOptions.NETWORK_MEMORY_MIN, MemorySize.ofMebiBytes(512));
            configuration.set(TaskManagerOptions.NETWORK_MEMORY_MAX, MemorySize.ofMebiBytes(512));
        }
        StreamExecutionEnvironment environment = StreamExecutionEnvironment.createLocalEnvironment(1, configuration);
        environment.getConfig().enableObjectReuse();
        DataStream<Event> stream = environment
                .fromSource(new NumberSequenceSource(0, events.length - 1), WatermarkStrategy.noWatermarks(), "events")
                .map(FlinkPeer::event)
                .returns(Event.class)
                .assignTimestampsAndWatermarks(
                        watermarks().withTimestampAssigner((event, t) -> event.t));
        build(stream);
        environment.execute();
    }

    private static Event event(Long at) {
        if (at == 0) {
            begin();
        }
        return input[at.intValue()];
    }

    private static void build(DataStream<Event> stream) {
        long within = Long.parseLong(text("within"));
        KeyedStream<Event, Integer> keyed = stream.keyBy(event -> event.key);
        switch (text("kind")) {
            case "pairs":
                // CEP has no pattern for any order; this join is what DataStream has.
                keyedOf(stream, 0).intervalJoin(keyedOf(stream, 1))
                        .between(Duration.ofMillis(1 - within), Duration.ofMillis(within - 1))
                        .process(new Joined())
                        .sinkTo(new DiscardingSink<>());
                return;
            case "windows":
                keyed.window(TumblingEventTimeWindows.of(Duration.ofMillis(within)))
                        .aggregate(new Totals(), new Results())
                        .sinkTo(new DiscardingSink<>());
                return;
            case "rules":
                for (int rule = 0; rule < number("rules"); rule++) {
                    int first = 2 * rule;
                    CEP.pattern(
                                    stream.filter(event -> event.type == first || event.type == first + 1)
                                            .keyBy(event -> event.key),
                                    of("a", first).followedBy("b").where(type(first + 1)).within(Duration.ofMillis(within)))
                            .process(new Found("rules", rule))
                            .sinkTo(new DiscardingSink<>());
                }
                return;
            default:
                CEP.pattern(global() ? stream : keyed, pattern().within(Duration.ofMillis(within)))
                        .process(new Found(text("kind"), 0))
                        .sinkTo(new DiscardingSink<>());
        }
    }

    private static KeyedStream<Event, Integer> keyedOf(DataStream<Event> stream, int type) {
        return stream.filter(event -> event.type == type).keyBy(event -> event.key);
    }

    private static boolean global() {
        return text("kind").equals("combinations") || (text("kind").equals("adjacent") && number("keyed") == 0);
    }

    private static SimpleCondition<Event> type(int type) {
        return SimpleCondition.of(event -> event.type == type);
    }

    private static Pattern<Event, Event> of(String name, int type) {
        return Pattern.<Event>begin(name).where(type(type));
    }

    private static Pattern<Event, Event> pattern() {
        switch (text("kind")) {
            case "followed":
                return of("a", 0).followedBy("b").where(type(1));
            case "strict_loop":
                return of("a", 0).next("b").where(type(1)).oneOrMore().consecutive().next("c").where(type(2));
            case "relaxed_loop":
                return of("a", 0).followedBy("b").where(type(1)).oneOrMore().followedBy("c").where(type(2));
            case "absence":
                return of("a", 0).notFollowedBy("b").where(type(1));
            case "combinations":
                Pattern<Event, Event> chain = of("e0", 0);
                int steps = number("steps");
                for (int step = 1; step < steps; step++) {
                    int wanted = step == steps - 1 && number("open") == 1 ? -1 : step;
                    chain = chain.followedByAny("e" + step).where(type(wanted));
                }
                return chain;
            case "adjacent":
                Pattern<Event, Event> rows = null;
                for (String range : text("ranges").split(",")) {
                    double low = Double.parseDouble(range.split(":")[0]);
                    double high = Double.parseDouble(range.split(":")[1]);
                    SimpleCondition<Event> inside = SimpleCondition.of(event -> event.value >= low && event.value < high);
                    rows = rows == null
                            ? Pattern.<Event>begin("s", AfterMatchSkipStrategy.skipPastLastEvent()).where(inside)
                            : rows.next("s" + rows.getName()).where(inside);
                }
                return rows;
            default:
                throw new IllegalArgumentException(text("kind"));
        }
    }

    /**
     * What is the fastest for each kind. With watermarks of every 200 ms, the default, CEP holds the events between two, and
     * looks through those of a key once for each: up to ten times as slow, the more the fewer the keys. Joins, windows, many
     * patterns, and those with many matches or partial ones are faster with few watermarks.
     */
    private static WatermarkStrategy<Event> watermarks() {
        switch (text("kind")) {
            case "followed":
            case "strict_loop":
            case "absence":
            case "adjacent":
                return WatermarkStrategy.forGenerator(context -> new EachEvent());
            default:
                return WatermarkStrategy.forMonotonousTimestamps();
        }
    }

    /** A watermark after each event. */
    private static final class EachEvent implements WatermarkGenerator<Event> {
        @Override
        public void onEvent(Event event, long t, WatermarkOutput out) {
            out.emitWatermark(new Watermark(t - 1));
        }

        @Override
        public void onPeriodicEmit(WatermarkOutput out) {}
    }

    /** Counts the matches of a pattern; emits nothing. */
    private static final class Found extends PatternProcessFunction<Event, Long> {
        private final String kind;
        private final int rule;

        Found(String kind, int rule) {
            this.kind = kind;
            this.rule = rule;
        }

        @Override
        public void processMatch(Map<String, List<Event>> match, Context context, Collector<Long> out) {
            switch (kind) {
                case "absence":
                    output.add(match.get("a").get(0).id);
                    return;
                case "followed":
                    output.add(match.get("a").get(0).id, match.get("b").get(0).id);
                    return;
                case "rules":
                    synchronized (output) { // each rule is a task with a thread of its own
                        output.add(rule, match.get("a").get(0).id, match.get("b").get(0).id);
                    }
                    return;
                case "strict_loop":
                case "relaxed_loop":
                    List<Event> loop = match.get("b");
                    output.add(match.get("a").get(0).id, loop.get(0).id, loop.get(loop.size() - 1).id,
                            match.get("c").get(0).id);
                    return;
                default:
                    // One event a step, and the map is in the order of the pattern.
                    long[] ids = new long[match.size()];
                    int at = 0;
                    for (List<Event> events : match.values()) {
                        ids[at++] = events.get(0).id;
                    }
                    output.add(ids);
            }
        }
    }

    private static final class Joined extends ProcessJoinFunction<Event, Event, Long> {
        @Override
        public void processElement(Event a, Event b, Context context, Collector<Long> out) {
            output.add(a.id, b.id);
        }
    }

    /** Count, sum and maximum of a window. */
    public static final class Total {
        public long count;
        public double sum;
        public double max = Double.NEGATIVE_INFINITY;
    }

    private static final class Totals implements AggregateFunction<Event, Total, Total> {
        @Override
        public Total createAccumulator() {
            return new Total();
        }

        @Override
        public Total add(Event event, Total total) {
            total.count++;
            total.sum += event.value;
            total.max = Math.max(total.max, event.value);
            return total;
        }

        @Override
        public Total getResult(Total total) {
            return total;
        }

        @Override
        public Total merge(Total one, Total other) {
            one.count += other.count;
            one.sum += other.sum;
            one.max = Math.max(one.max, other.max);
            return one;
        }
    }

    private static final class Results extends ProcessWindowFunction<Total, Long, Integer, TimeWindow> {
        @Override
        public void process(Integer key, Context context, Iterable<Total> totals, Collector<Long> out) {
            Total total = totals.iterator().next();
            output.add(new long[] {
                key, context.window().getStart(), total.count, (long) (total.sum * 1024), (long) (total.max * 1024)
            });
        }
    }
}
