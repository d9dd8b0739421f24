"""What Prometheus would see of a node: its statistics, looked at when they are scraped.

A node of threads sends three messages, of which one is rejected; then it is scraped over HTTP like any other target.
You see the counters and gauges of the conversation.  Needs: pip install networkio[prometheus]

    python examples/metrics.py
"""

from urllib.request import urlopen

from prometheus_client import CollectorRegistry, start_http_server

from networkio_metrics.prometheus import NodeCollector
from networkio_threads import Node


def main() -> None:
    with Node("server") as server, Node("client") as client:
        listener = server.listen("127.0.0.1", 0)
        peer = client.connect("127.0.0.1", listener.port, "server")
        receipts = peer.send_many(["one", "two", "three"])
        far = server.peer("client")
        for _ in range(2):
            far.read()
        far.receive().reject("enough")
        receipts[1].read(timeout=10)
        peer.drain(timeout=10)

        registry = CollectorRegistry()
        registry.register(NodeCollector(client, peers=["server"]))  # peers that have series of their own
        httpd, thread = start_http_server(0, "127.0.0.1", registry)
        with urlopen(f"http://127.0.0.1:{httpd.server_port}/metrics") as response:
            for line in response.read().decode().splitlines():
                if line.startswith("networkio_messages_") and 'peer="server"' in line and not line.endswith(" 0.0"):
                    print(line)
        httpd.shutdown()
        httpd.server_close()
        thread.join()


if __name__ == "__main__":
    main()
