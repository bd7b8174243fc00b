// sisa completion: a script that lets a shell complete the words of this command.
import { Argument, type Command } from "commander";
import { completionScript, type Shell, shells } from "../completion.ts";
import { type Context, command } from "../context.ts";

export function completionCommand({ io }: Context): Command {
  return command("completion", "print a script that completes commands, options and their values in a shell", [
    "source <(sisa completion bash)",
    "sisa completion bash >> ~/.bashrc",
    "sisa completion zsh > ~/.zfunc/_sisa   # a folder of $fpath",
    "sisa completion fish > ~/.config/fish/completions/sisa.fish",
  ])
    .addArgument(new Argument("<shell>", "which shell").choices(shells))
    .action((shell: Shell, _options: unknown, self: Command) => {
      if (self.parent !== null) io.stdout.write(completionScript(self.parent, shell));
    });
}
