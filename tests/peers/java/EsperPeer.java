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
        begin();
        for (Event event : events) {
            service.advanceTime(event.t);
            service.sendEventBean(event, "Event");
        }
        // Beyond every bound, so that absences are decided and windows close.
        service.advanceTime(events[events.length - 1].t + 10 * Long.parseLong(text("within")));
        runtime.destroy();
    }

    private EPRuntime deploy(Matches matches) throws Exception {
        EPRuntime runtime = EPRuntimeProvider.getRuntime("pass-" + passes++, configuration);
        runtime.getEventService().advanceTime(0);
        Object subscriber = subscriber(matches);
        for (EPStatement statement : runtime.getDeploymentService().deploy(compiled).getStatements()) {
            if (statement.getEventType().getPropertyNames().length > 0) {
                statement.setSubscriber(subscriber);
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
                if (ARGUMENTS.containsKey("variant")) {
                    return "create context ByKey partition by key from Event;"
                            + "context ByKey select a.id, b.id from pattern [every a=Event(type=0) -> "
                            + "(b=Event(type=1) where timer:within(" + within + "))];";
                }
                return "select a.id, b.id from pattern [every a=Event(type=0) -> (b=Event(type=1, key=a.key) "
                        + "where timer:within(" + within + "))];";
            default:
                throw new IllegalArgumentException(text("kind"));
        }
    }

    private static Object subscriber(Matches matches) {
        return new Pairs(matches);
    }

    /** Takes the two numbers that a statement selects. */
    public static final class Pairs {
        private final Matches matches;

        Pairs(Matches matches) {
            this.matches = matches;
        }

        public void update(long a, long b) {
            matches.add(a, b);
        }
    }
}
