import io.siddhi.core.SiddhiAppRuntime;
import io.siddhi.core.SiddhiManager;
import io.siddhi.core.stream.input.InputHandler;
import io.siddhi.core.stream.output.StreamCallback;

/** Siddhi: one thread gives the events, with their timestamps; partitions by key where a pattern is of one key. */
public final class SiddhiPeer extends Peer {
    private final SiddhiManager manager = new SiddhiManager();
    private Object[][] rows;

    public static void main(String[] arguments) throws Exception {
        run(arguments, new SiddhiPeer());
    }

    @Override
    protected void prepare() {
        deploy(new Matches()).shutdown();
    }

    @Override
    protected void pass(Event[] events, Matches matches) throws Exception {
        if (rows == null) {
            rows = new Object[events.length][];
            for (Event event : events) {
                rows[(int) event.id] = new Object[] {event.id, event.t, event.key, event.type, event.value};
            }
        }
        SiddhiAppRuntime runtime = deploy(matches);
        InputHandler handler = runtime.getInputHandler("S");
        begin();
        for (int at = 0; at < rows.length; at++) {
            handler.send(events[at].t, rows[at]);
        }
        // Beyond every bound: of no type and of a key of its own.
        long last = events[events.length - 1].t + 2 * Long.parseLong(text("within"));
        handler.send(last, new Object[] {-1L, last, -1, -1, -1.0});
        runtime.shutdown();
    }

    private SiddhiAppRuntime deploy(Matches matches) {
        SiddhiAppRuntime runtime = manager.createSiddhiAppRuntime(app());
        runtime.addCallback("O", new StreamCallback() {
            @Override
            public void receive(io.siddhi.core.event.Event[] found) {
                for (io.siddhi.core.event.Event each : found) {
                    Object[] data = each.getData();
                    long[] numbers = new long[data.length];
                    for (int at = 0; at < data.length; at++) {
                        numbers[at] = data[at] instanceof Double
                                ? (long) ((Double) data[at] * 1024) : ((Number) data[at]).longValue();
                    }
                    matches.add(numbers);
                }
            }
        });
        runtime.start();
        return runtime;
    }

    private static String app() {
        // Its bounds are closed: a distance of exactly the bound is inside.
        String within = Long.parseLong(text("within")) - 1 + " milliseconds";
        String period = text("within") + " milliseconds";
        String kind = text("kind");
        String stream = "define stream S (id long, t long, key int, type int, value double);\n";
        switch (kind) {
            case "pairs":
                return stream + byKey("from S[type == 0]#window.externalTime(t, " + period + ") as a join "
                        + "S[type == 1]#window.externalTime(t, " + period + ") as b on a.t - b.t < " + text("within")
                        + "L and b.t - a.t < " + text("within") + "L select a.id as a, b.id as b insert into O;");
            case "followed":
                return stream + byKey("from every a=S[type == 0] -> b=S[type == 1] within " + within
                        + " select a.id as a, b.id as b insert into O;");
            case "rules":
                StringBuilder rules = new StringBuilder();
                for (int rule = 0; rule < number("rules"); rule++) {
                    rules.append("from every a=S[type == ").append(2 * rule).append("] -> b=S[type == ")
                            .append(2 * rule + 1).append("] within ").append(within).append(" select ").append(rule)
                            .append("L as r, a.id as a, b.id as b insert into O;\n");
                }
                return stream + byKey(rules.toString());
            case "strict_loop":
                return stream + byKey("from every a=S[type == 0], b=S[type == 1]+, c=S[type == 2] within " + within
                        + " select a.id as a, b[0].id as b, b[last].id as d, c.id as c insert into O;");
            case "relaxed_loop":
                return stream + byKey("from every a=S[type == 0] -> b=S[type == 1]<1:> -> c=S[type == 2] within " + within
                        + " select a.id as a, b[0].id as b, b[last].id as d, c.id as c insert into O;");
            case "absence":
                return "@app:playback " + stream + byKey("from every a=S[type == 0] -> not S[type == 1] for " + period
                        + " select a.id as a insert into O;");
            case "combinations":
                return stream + combinations(within);
            case "windows":
                return stream + "from S#window.externalTimeBatch(t, " + period + ", 0L) select key, (t / " + text("within")
                        + "L) * " + text("within") + "L as start, count() as n, sum(value) as total, max(value) as top "
                        + "group by key insert into O;";
            case "adjacent":
                return stream + (number("keyed") == 1 ? byKey(adjacent()) : adjacent());
            default:
                throw new IllegalArgumentException(kind);
        }
    }

    private static String byKey(String queries) {
        return "partition with (key of S) begin " + queries + " end;";
    }

    private static String combinations(String within) {
        int steps = number("steps");
        StringBuilder pattern = new StringBuilder();
        StringBuilder selected = new StringBuilder();
        for (int step = 0; step < steps; step++) {
            int type = step == steps - 1 && number("open") == 1 ? -2 : step;
            // `within` counts anew from each `every`; the condition holds the whole match to the bound.
            pattern.append(step == 0 ? "" : " -> ").append("every e").append(step).append("=S[type == ").append(type)
                    .append(step == 0 ? "]" : " and t - e0.t < " + text("within") + "L]");
            selected.append(step == 0 ? "" : ", ").append("e").append(step).append(".id as i").append(step);
        }
        return "from " + pattern + " within " + within + " select " + selected + " insert into O;";
    }

    private static String adjacent() {
        StringBuilder pattern = new StringBuilder();
        StringBuilder selected = new StringBuilder();
        int step = 0;
        for (String range : text("ranges").split(",")) {
            String[] bounds = range.split(":");
            pattern.append(step == 0 ? "every " : ", ").append("s").append(step).append("=S[value >= ").append(bounds[0])
                    .append(".0 and value < ").append(bounds[1]).append(".0]");
            selected.append(step == 0 ? "" : ", ").append("s").append(step).append(".id as i").append(step);
            step++;
        }
        return "from " + pattern + " select " + selected + " insert into O;";
    }
}
