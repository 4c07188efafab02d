import com.espertech.esper.common.client.EPCompiled;
import com.espertech.esper.common.client.configuration.Configuration;
import com.espertech.esper.compiler.client.CompilerArguments;
import com.espertech.esper.compiler.client.EPCompilerProvider;
import com.espertech.esper.runtime.client.EPEventService;
import com.espertech.esper.runtime.client.EPRuntime;
import com.espertech.esper.runtime.client.EPRuntimeProvider;
import com.espertech.esper.runtime.client.EPStatement;
import java.util.ArrayList;
import java.util.List;

/**
 * Esper, as its documentation on performance recommends: events as objects of a class, subscribers in place of listeners,
 * filters inside the pattern, no locks and no timer thread, since one thread gives events and time.
 */
public final class EsperPeer extends Peer {
    private Configuration configuration;
    private EPCompiled compiled;
    private int passes;

    public static void main(String[] arguments) throws Exception {
        run(arguments, new EsperPeer());
    }

    @Override
    protected void prepare() throws Exception {
        configuration = new Configuration();
        configuration.getCommon().addEventType("Event", Event.class);
        configuration.getRuntime().getThreading().setInternalTimerEnabled(false);
        configuration.getRuntime().getThreading().setListenerDispatchPreserveOrder(false);
        configuration.getRuntime().getThreading().setInsertIntoDispatchPreserveOrder(false);
        configuration.getRuntime().getExecution().setDisableLocking(true);
        configuration.getCompiler().getByteCode().setAllowSubscriber(true);
        compiled = EPCompilerProvider.getCompiler().compile(epl(), new CompilerArguments(configuration));
        deploy(new Matches()).destroy();
    }

    @Override
    protected void pass(Event[] events, Matches matches) throws Exception {
        EPRuntime runtime = deploy(matches);
        EPEventService service = runtime.getEventService();
        // Windows begin at their time, not at that of the first event after it.
        boolean windows = text("kind").equals("windows");
        begin();
        for (Event event : events) {
            if (windows) {
                service.advanceTimeSpan(event.t);
            } else {
                service.advanceTime(event.t);
            }
            service.sendEventBean(event, "Event");
        }
        // Beyond every bound, so that absences are decided and windows close.
        long last = events[events.length - 1].t + 2 * Long.parseLong(text("within"));
        if (windows) {
            service.advanceTimeSpan(last);
        } else {
            service.advanceTime(last);
        }
        runtime.destroy();
    }

    private EPRuntime deploy(Matches matches) throws Exception {
        EPRuntime runtime = EPRuntimeProvider.getRuntime("pass-" + passes++, configuration);
        runtime.getEventService().advanceTime(0);
        for (EPStatement statement : runtime.getDeploymentService().deploy(compiled).getStatements()) {
            if (statement.getEventType().getPropertyNames().length > 0) {
                statement.setSubscriber(subscriber(statement.getName(), matches));
            }
        }
        return runtime;
    }

    private static String epl() {
        String within = text("within") + " milliseconds";
        switch (text("kind")) {
            case "pairs":
                return "select a.id, b.id from Event(type=0)#time(" + within + ") as a, Event(type=1)#time(" + within
                        + ") as b where a.key = b.key;";
            case "followed":
                return followed(0, 1, within);
            case "rules":
                StringBuilder rules = new StringBuilder();
                for (int rule = 0; rule < number("rules"); rule++) {
                    rules.append("@name('").append(rule).append("') ").append(followed(2 * rule, 2 * rule + 1, within));
                }
                return rules.toString();
            case "strict_loop":
                return "select a, b, d, c from Event match_recognize (partition by key measures A.id as a, "
                        + "first(B.id) as b, last(B.id) as d, C.id as c pattern (A B+ C) define A as A.type = 0, "
                        + "B as B.type = 1 and B.t - A.t < " + text("within") + ", C as C.type = 2 and C.t - A.t < "
                        + text("within") + ");";
            case "absence":
                return "select a.id from pattern [every a=Event(type=0) -> (timer:interval(" + within
                        + ") and not Event(type=1, key=a.key))];";
            case "combinations":
                return combinations(within);
            case "windows":
                return "create context Tumbling initiated @now and pattern [every timer:interval(" + within
                        + ")] terminated after " + within + "; context Tumbling select context.startTime, key, count(*), "
                        + "sum(value), max(value) from Event group by key output snapshot when terminated;";
            case "adjacent":
                return adjacent();
            default:
                throw new IllegalArgumentException(text("kind"));
        }
    }

    private static String followed(int first, int second, String within) {
        return "select a.id, b.id from pattern [every a=Event(type=" + first + ") -> (b=Event(type=" + second
                + ", key=a.key) where timer:within(" + within + "))];\n";
    }

    private static String combinations(String within) {
        int steps = number("steps");
        List<String> selected = new ArrayList<>();
        StringBuilder pattern = new StringBuilder();
        for (int step = 0; step < steps; step++) {
            selected.add("e" + step + ".id");
            int type = step == steps - 1 && number("open") == 1 ? -1 : step;
            pattern.append(step == 0 ? "every " : step == 1 ? " -> (every " : " -> every ");
            pattern.append("e").append(step).append("=Event(type=").append(type).append(")");
        }
        return "select " + String.join(", ", selected) + " from pattern [" + pattern + ") where timer:within(" + within
                + ")];";
    }

    /** Rows in a row, each with its value in a range: SQL's MATCH_RECOGNIZE, which Esper has too. */
    private static String adjacent() {
        List<String> measures = new ArrayList<>();
        List<String> pattern = new ArrayList<>();
        List<String> defined = new ArrayList<>();
        List<String> selected = new ArrayList<>();
        for (String range : text("ranges").split(",")) {
            String[] bounds = range.split(":");
            String step = "S" + pattern.size();
            selected.add("i" + pattern.size());
            measures.add(step + ".id as i" + pattern.size());
            pattern.add(step);
            defined.add(step + " as " + step + ".value >= " + bounds[0] + " and " + step + ".value < " + bounds[1]);
        }
        return "select " + String.join(", ", selected) + " from Event match_recognize ("
                + (number("keyed") == 1 ? "partition by key " : "") + "measures " + String.join(", ", measures)
                + " pattern (" + String.join(" ", pattern) + ") define " + String.join(", ", defined) + ");";
    }

    private static Object subscriber(String statement, Matches matches) {
        switch (text("kind")) {
            case "rules":
                return new OfRule(Integer.parseInt(statement), matches);
            case "windows":
                return new Windows(matches);
            case "absence":
                return new Single(matches);
            case "pairs":
            case "followed":
                return new Pairs(matches);
            default:
                return new Rows(matches);
        }
    }

    /** Takes the one number that a statement selects. */
    public static final class Single {
        private final Matches matches;

        Single(Matches matches) {
            this.matches = matches;
        }

        public void update(long a) {
            matches.add(a);
        }
    }

    /** Takes two numbers. */
    public static final class Pairs {
        private final Matches matches;

        Pairs(Matches matches) {
            this.matches = matches;
        }

        public void update(long a, long b) {
            matches.add(a, b);
        }
    }

    /** Takes two numbers of one of many statements. */
    public static final class OfRule {
        private final int rule;
        private final Matches matches;

        OfRule(int rule, Matches matches) {
            this.rule = rule;
            this.matches = matches;
        }

        public void update(long a, long b) {
            matches.add(rule, a, b);
        }
    }

    /** Takes results of windows. */
    public static final class Windows {
        private final Matches matches;

        Windows(Matches matches) {
            this.matches = matches;
        }

        public void update(long start, int key, long count, double sum, double max) {
            matches.add(new long[] {key, start, count, (long) (sum * 1024), (long) (max * 1024)});
        }
    }

    /** Takes any number of numbers. */
    public static final class Rows {
        private final Matches matches;

        Rows(Matches matches) {
            this.matches = matches;
        }

        public void update(Object[] row) {
            long[] numbers = new long[row.length];
            for (int at = 0; at < row.length; at++) {
                numbers[at] = ((Number) row[at]).longValue();
            }
            matches.add(numbers);
        }
    }
}
