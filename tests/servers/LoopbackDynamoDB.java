// Starts DynamoDB Local on 127.0.0.1. Its own main class binds every interface and has no option against that; a test
// machine's neighbours have no business with our tables. Run by `java -cp ... LoopbackDynamoDB.java <its usual options>`.
import com.amazonaws.services.dynamodbv2.local.main.ServerRunner;
import com.amazonaws.services.dynamodbv2.local.server.DynamoDBProxyServer;
import java.lang.reflect.Field;
import org.eclipse.jetty.server.Connector;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;

public class LoopbackDynamoDB {
    public static void main(String[] args) throws Exception {
        DynamoDBProxyServer dynamodb = ServerRunner.createServerFromCommandLineArgs(args);
        Field field = DynamoDBProxyServer.class.getDeclaredField("server");
        field.setAccessible(true);
        for (Connector connector : ((Server) field.get(dynamodb)).getConnectors()) {
            ((ServerConnector) connector).setHost("127.0.0.1"); // a connector of another kind: better fail than listen wide
        }
        dynamodb.start();
        dynamodb.join();
    }
}
